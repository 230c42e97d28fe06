"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const NS = "http://www.w3.org/2000/svg", W = 1000;
const tip = document.body.appendChild(Object.assign(document.createElement("div"), { className: "tip" }));
let drawn = 0;

function make(parent, tag, attributes, text) {
  const node = document.createElementNS(NS, tag);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  if (text !== undefined) node.textContent = text;
  return parent.appendChild(node);
}

function hint(node, text) {
  node.addEventListener("mousemove", (e) => {
    tip.textContent = text; tip.style.display = "block";
    tip.style.left = Math.min(e.clientX + 12, innerWidth - tip.offsetWidth - 8) + "px";
    tip.style.top = e.clientY + 14 + "px";
  });
  node.addEventListener("mouseleave", () => { tip.style.display = "none"; });
  make(node, "title", {}, text);
}

function canvas(id, height) {
  const box = document.getElementById(id);
  box.querySelectorAll("svg").forEach((old) => old.remove());
  return make(box, "svg", { viewBox: `0 0 ${W} ${height}`, role: "img" });
}

function done(svg) {
  if (svg.querySelectorAll(".mark").length) { svg.dataset.drawn = "true"; drawn += 1; }
}

function legend(id, entries) {
  const line = document.createElement("p");
  line.className = "legend";
  for (const [name, color] of entries) {
    const box = line.appendChild(document.createElement("i"));
    box.style.background = `var(--${color})`;
    line.append(name);
  }
  document.getElementById(id).prepend(line);
  return line;
}

function ticks(low, high) {
  const raw = (high - low) / 6, unit = 10 ** Math.floor(Math.log10(raw || 1));
  const step = [1, 2, 5, 10].map((m) => m * unit).find((s) => s >= raw) || unit;
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high; v += step) found.push(+v.toPrecision(6));
  return found;
}

function axis(svg, x, low, high, bottom, label) {
  make(svg, "line", { x1: 60, x2: W - 20, y1: bottom, y2: bottom, class: "axis" });
  for (const v of ticks(low, high)) make(svg, "text", { x: x(v), y: bottom + 18, "text-anchor": "middle" }, v);
  make(svg, "text", { x: W - 20, y: bottom + 36, "text-anchor": "end" }, label);
}

function targetLine(svg, x, low, high, bottom) {
  if (data.target === null || data.target < low || data.target > high) return;
  make(svg, "line", { x1: x(data.target), x2: x(data.target), y1: 14, y2: bottom, class: "target" });
  make(svg, "text", { x: x(data.target) + 6, y: 24, class: "target" }, `target ${+data.target.toPrecision(4)} ms`);
}

function distribution() {
  const sets = [["before", data.before], ["after", data.after]].filter((s) => s[1] && s[1].samples.length);
  if (!sets.length) return;
  const sorted = sets.map((s) => [...s[1].samples].sort((a, b) => a - b));
  // The slowest 2 % would squeeze everything else into one bar; they are counted in the last one.
  let high = Math.max(...sorted.map((s) => s[Math.floor(0.98 * (s.length - 1))]));
  let low = Math.min(...sorted.map((s) => s[0]));
  if (data.target !== null && data.target > low / 3) { high = Math.max(high, data.target); low = Math.min(low, data.target); }
  const pad = (high - low) * 0.04 || high * 0.05; low = Math.max(0, low - pad); high += pad;
  const bins = 80, bottom = 230, svg = canvas("distribution", 275);
  const x = (v) => 60 + (W - 80) * (v - low) / (high - low);
  const counts = sorted.map((s) => {
    const c = new Array(bins).fill(0);
    for (const v of s) c[Math.max(0, Math.min(bins - 1, Math.floor(bins * (v - low) / (high - low))))] += 1 / s.length;
    return c;
  });
  const top = Math.max(...counts.flat());
  counts.forEach((c, i) => c.forEach((share, b) => {
    if (!share) return;
    const h = 190 * share / top, from = low + b * (high - low) / bins, to = from + (high - low) / bins;
    const bar = make(svg, "rect", { x: x(from), width: (W - 80) / bins - 1, y: bottom - h, height: h, class: `mark ${sets[i][0]}`, opacity: 0.8 });
    hint(bar, `${sets[i][0]}: ${from.toPrecision(3)}–${to.toPrecision(3)} ms, ${(100 * share).toFixed(1)} % of samples`);
  }));
  for (const [name, s] of sets) {
    make(svg, "line", { x1: x(s.value), x2: x(s.value), y1: 32, y2: bottom, stroke: `var(--${name})`, "stroke-width": 2 });
    make(svg, "text", { x: x(s.value) + 5, y: 42 }, `p${data.percentile} ${s.value.toPrecision(3)} ms`);
  }
  axis(svg, x, low, high, bottom, "latency (ms)"); targetLine(svg, x, low, high, bottom);
  legend("distribution", sets.map((s) => [s[0] === "before" ? "original" : "result", s[0]]));
  done(svg);
}

function candidates() {
  const points = data.candidates.filter((c) => c.accuracy !== null);
  if (!points.length) {
    document.getElementById("candidates").textContent = data.candidates.length
      ? "Accuracy is unknown: there was no data to evaluate the candidates on." : "No candidates were searched.";
    return;
  }
  const span = (values) => { const a = Math.min(...values), b = Math.max(...values), p = (b - a) * 0.08 || b * 0.05 || 1; return [a - p, b + p]; };
  let [low, high] = span(points.map((p) => p.ms).concat(data.target === null ? [] : [data.target]));
  low = Math.max(0, low);
  const [worst, best] = span(points.map((p) => p.accuracy)), bottom = 280, svg = canvas("candidates", 325);
  const x = (v) => 60 + (W - 80) * (v - low) / (high - low), y = (v) => 20 + (bottom - 30) * (best - v) / (best - worst);
  for (const v of ticks(worst, best)) if (v <= 1) make(svg, "text", { x: 52, y: y(v) + 4, "text-anchor": "end" }, `${+(100 * v).toFixed(2)} %`);
  axis(svg, x, low, high, bottom, "latency (ms)"); targetLine(svg, x, low, high, bottom);
  for (const p of points) {
    const dot = make(svg, "circle", { cx: x(p.ms), cy: y(p.accuracy), r: p.chosen ? 8 : 6, class: `mark ${p.chosen ? "after chosen" : "before"}` });
    hint(dot, `${p.label}: ${p.ms.toPrecision(3)} ms (${p.low.toPrecision(3)}–${p.high.toPrecision(3)}), accuracy ${(100 * p.accuracy).toFixed(2)} %`);
  }
  legend("candidates", [["chosen", "after"], ["the others, tried ones not fine-tuned; on the data that decided, see above", "before"]]);
  done(svg);
}

function layerRows() {
  const rows = new Map();
  for (const [key, list] of [["before", data.layersBefore], ["after", data.layersAfter]])
    for (const l of list) {
      if (!rows.has(l.name)) rows.set(l.name, { name: l.name, before: 0, after: 0 });
      rows.get(l.name)[key] += l.ms;
    }
  return [...rows.values()];
}

let byTime = true;
function layers() {
  const all = layerRows();
  if (!all.length) return;
  const ranked = [...all].sort((a, b) => b.before - a.before), shown = new Set(ranked.slice(0, 20)), rest = ranked.slice(20);
  const rows = byTime ? [...shown] : all.filter((r) => shown.has(r));
  if (rest.length) rows.push(rest.reduce((s, r) => ({ name: s.name, before: s.before + r.before, after: s.after + r.after }), { name: `${rest.length} others`, before: 0, after: 0 }));
  const most = Math.max(...rows.map((r) => Math.max(r.before, r.after))) || 1, svg = canvas("layers", rows.length * 26 + 10);
  rows.forEach((row, i) => ["before", "after"].forEach((key, k) => {
    if (key === "after" && !data.layersAfter.length) return;
    const bar = make(svg, "rect", { x: 210, y: i * 26 + 4 + k * 10, height: 9, width: Math.max(1, (W - 300) * row[key] / most), class: `mark ${key}` });
    hint(bar, `${row.name}, ${key}: ${row[key].toPrecision(3)} ms`);
    if (k === 0) make(svg, "text", { x: 200, y: i * 26 + 17, "text-anchor": "end" }, row.name.length > 28 ? "…" + row.name.slice(-27) : row.name);
    make(svg, "text", { x: 216 + (W - 300) * row[key] / most, y: i * 26 + 13 + k * 10, style: "font-size:9px" }, row[key].toPrecision(2));
  }));
  done(svg);
}

distribution(); candidates(); layers();
if (document.querySelector("#layers svg")) {
  const line = legend("layers", [["original", "before"], ...(data.layersAfter.length ? [["result", "after"]] : [])]);
  const button = Object.assign(document.createElement("button"), { textContent: "order as in the model" });
  button.style.marginLeft = "16px";
  button.onclick = () => { byTime = !byTime; button.textContent = byTime ? "order as in the model" : "slowest first"; layers(); };
  line.append(button);
}
document.body.dataset.charts = drawn;
