"""American spelling and plain English in the package's names, messages, docstrings and comments."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest
from imports import ROOT, files

BRITISH = re.compile(
    r"analys(e|ed|es|ing)(?![a-z])|behaviour|colour|favour|grey(?![a-z])|labell|learnt|neighbour"
    r"|optimis|(canonical|equal|factor|general|initial|minim|maxim|normal|parametr|penal|real"
    r"|regular|serial|special|standard|summar|synchron|token|vector)is(e|ing|ation)"
    r"|quantis|recognis|spelt|centre|modelled|cancelled",
    re.IGNORECASE,
)
WORDS = re.compile(
    r"\banew\b|\blikewise\b|\b(of|than) (ours|theirs)\b"
    r"|(?<!there )(?<!There )\b(is|are) no (?!longer|more|less|nearer|faster|slower|better|worse"
    r"|larger|smaller)",
)
OPENING = re.compile(r"(What|Why|Which|Whether|How)\b")
CHECKED = list(files())
NAMES = [str(p.relative_to(ROOT)) for p in CHECKED]


def lines(path: Path, kinds: set[int]) -> list[str]:
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    return [f"{t.start[0]}: {t.string}" for t in tokens if t.type in kinds]


TEXT = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}


@pytest.mark.parametrize("path", CHECKED, ids=NAMES)
def test_spelling_is_american(path):
    assert [t for t in lines(path, {*TEXT, tokenize.NAME}) if BRITISH.search(t)] == []


@pytest.mark.parametrize("path", CHECKED, ids=NAMES)
def test_texts_say_it_plainly(path):
    assert [t for t in lines(path, TEXT) if WORDS.search(t)] == []


@pytest.mark.parametrize("path", CHECKED, ids=NAMES)
def test_docstrings_open_with_a_noun_or_a_verb(path):
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, kinds)]
    assert [d for n in found if (d := ast.get_docstring(n)) and OPENING.match(d)] == []


@pytest.mark.parametrize(
    "text", ["analyse", "Optimiser", "neighbours", "normalised", "a grey image", "_labelled"]
)
def test_british_spelling_would_be_seen(text):
    assert BRITISH.search(text)


@pytest.mark.parametrize("text", ["analysis", "realistic", "specialist", "centers", "promise"])
def test_other_words_pass(text):
    assert not BRITISH.search(text)


@pytest.mark.parametrize("text", ["it is no file", "compiled anew", "a kernel of ours"])
def test_strange_english_would_be_seen(text):
    assert WORDS.search(text) and not WORDS.search("there is no file, which is no longer than it")
