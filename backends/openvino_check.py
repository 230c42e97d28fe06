"""A stored `model.openvino.xml`, checked before OpenVINO reads it: of its own operators alone, all
values within the `.bin` beside it, no paths, no entities of XML.

OpenVINO's reader takes operators of libraries that were registered for their opset's name; what is
not listed here is refused, whatever it may be.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

MAX_XML = 256 << 20  # bytes
MAX_ELEMENTS = 5_000_000
OPSET = re.compile(r"opset[0-9]{1,2}")
ATTRIBUTE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
PATHS = re.compile(r"file|path|dir|url|uri|librar|plugin", re.IGNORECASE)
# element -> the attributes that it may have; None: those of an operator
ELEMENTS: Mapping[str, frozenset[str] | None] = {
    "net": frozenset({"name", "version"}),
    "layers": frozenset(), "edges": frozenset(), "input": frozenset(), "output": frozenset(),
    "rt_info": frozenset({"name"}),
    "layer": frozenset({"id", "name", "type", "version"}),
    "data": None,
    "port": frozenset({"id", "precision", "names"}),
    "dim": frozenset(),
    "edge": frozenset({"from-layer", "from-port", "to-layer", "to-port"}),
    "attribute": frozenset({"name", "version", "value"}),
}  # fmt: skip
# https://docs.openvino.ai: operation sets. Without those that hold graphs or keep state.
TYPES = frozenset(
    """
    Abs Acos Acosh AdaptiveAvgPool AdaptiveMaxPool Add Asin Asinh Atan Atanh AvgPool
    BatchNormInference BatchToSpace BinaryConvolution BitwiseAnd BitwiseLeftShift BitwiseNot
    BitwiseOr BitwiseRightShift BitwiseXor Broadcast Bucketize Ceiling Clamp Concat Const Convert
    ConvertLike ConvertPromoteTypes Convolution ConvolutionBackpropData Cos Cosh CumSum
    DepthToSpace Divide Einsum Elu EmbeddingBagOffsets EmbeddingBagPacked EmbeddingBagOffsetsSum
    EmbeddingBagPackedSum EmbeddingSegmentsSum Equal Erf Exp Eye FakeConvert FakeQuantize Floor
    FloorMod Gather GatherElements GatherND GatherTree Gelu Greater GreaterEqual GridSample
    GroupConvolution GroupConvolutionBackpropData GroupNormalization GRUCell GRUSequence
    HardSigmoid HSigmoid HSwish I420toBGR I420toRGB Identity Interpolate Inverse IsFinite IsInf
    IsNaN Less LessEqual Log LogSoftmax LogicalAnd LogicalNot LogicalOr LogicalXor LRN LSTMCell
    LSTMSequence MatMul MatrixNms MaxPool Maximum Minimum Mish Mod Multiply MulticlassNms
    Multinomial
    MVN Negative NonMaxSuppression NonZero NormalizeL2 NotEqual OneHot Pad Parameter Power PRelu
    Range RDFT IRDFT DFT IDFT ReduceL1 ReduceL2 ReduceLogicalAnd ReduceLogicalOr ReduceMax
    ReduceMean
    ReduceMin ReduceProd ReduceSum ReLU Relu Reshape Result Reverse ReverseSequence RMS RNNCell
    RNNSequence Roll ROIAlign ROIAlignRotated ROIPooling Round ScaledDotProductAttention
    ScatterElementsUpdate ScatterNDUpdate ScatterUpdate SearchSorted SegmentMax Select Selu ShapeOf
    Sigmoid Sign Sin Sinh Slice SliceScatter SoftMax Softmax SoftPlus SoftSign SpaceToBatch
    SpaceToDepth Split Sqrt SquaredDifference Squeeze STFT StridedSlice Subtract Swish Tan Tanh Tile
    TopK Transpose Unique Unsqueeze VariadicSplit
    """.split()
)


def check_ir(xml: bytes, weights: int) -> None:
    """Raises ValueError with what is refused; `weights`: the bytes that the `.bin` holds."""
    if len(xml) > MAX_XML:
        raise ValueError("more text than any model has")
    if b"<!" in xml or b"<?" in xml[5:]:  # it may define entities, which grow as they are read
        raise ValueError("a declaration of XML")
    try:
        xml.decode("utf-8")
        root = ElementTree.fromstring(xml)
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
        raise ValueError(f"text that is not XML ({error})") from error
    if root.tag != "net":
        raise ValueError("another thing than a net")
    for number, element in enumerate(root.iter()):
        if number > MAX_ELEMENTS:
            raise ValueError("more parts than any model has")
        _check(element, weights)


def _check(element: Element, weights: int) -> None:
    known = ELEMENTS.get(element.tag, frozenset())
    if element.tag not in ELEMENTS:
        raise ValueError(f"a part `{element.tag[:40]}`")
    for name in element.attrib:
        if name not in known if known is not None else not _is_attribute(name):
            raise ValueError(f"`{name[:40]}` in a `{element.tag}`")
    if element.tag == "layer":
        kind, opset = element.get("type", ""), element.get("version", "")
        if kind not in TYPES or not OPSET.fullmatch(opset):
            raise ValueError(f"the operator `{kind[:40]}` of `{opset[:40]}`")
        if kind == "Const":
            _check_constant(element.find("data"), weights)
    if element.tag == "attribute" and not _is_attribute(element.get("name", "")):
        raise ValueError(f"`{element.get('name', '')[:40]}` of a layer")


def _is_attribute(name: str) -> bool:
    return ATTRIBUTE.fullmatch(name) is not None and not PATHS.search(name)


def _check_constant(data: Element | None, weights: int) -> None:
    if data is None:
        raise ValueError("a constant without values")
    texts = data.get("offset", ""), data.get("size", "")
    if not all(text.isascii() and text.isdigit() and len(text) < 19 for text in texts):
        raise ValueError("a constant that lies nowhere")
    offset, size = map(int, texts)
    if offset + size > weights or data.get("element_type") == "string":
        raise ValueError("a constant beyond the end of its file")
