"""What to do about a node in float, by the reason that placement, lowering or calibration gave."""

from __future__ import annotations

REMEDIES: tuple[tuple[str, str], ...] = (
    ("the recipe keeps it in float", "take it out of the recipe's overrides"),
    (
        "no integer form",
        "use an operation that has one, or keep it where it costs least: at an end of the network",
    ),
    (
        "a table of codes in the NumPy engine alone",
        "nothing, but for speed: its engines in C and TFLite use the table",
    ),
    ("codes of 16 bits", "8 bits, or another runtime"),
    ("it pads with the tensor's own values", "pad with zeros, or leave the padding to the layer behind it"),
    ("a Softmax of 16-bit codes", "8 bits for its input"),
    ("its input is in float", "look at what stands before it"),
    ("its input is not codes", "look at what stands before it"),
    ("only float nodes read it", "look at what stands behind it"),
    ("none of its inputs comes from an integer op", "look at what stands before it"),
    ("one of its inputs is a mask", "nothing: a mask has no scale"),
    ("its weight is not constant", "export the model with that weight as a constant"),
    ("its bias is not constant", "export the model with that bias as a constant"),
    ("ONNX Runtime has no integer kernel", "resize and convolve, or run it in float at the end"),
    ("of opset", "export the model with a newer opset"),
    ("its sums leave as float", "let what reads it be integer, too"),
    ("its output is not quantized", "let what reads it be integer, too"),
    ("the size of its window", "export the model with that size as a constant"),
    ("not known", "export the model with fixed shapes"),
    ("not constant", "export the model with those as constants"),
    ("Gemm with alpha", "fold the factors into the weights"),
    ("its window has", "use windows of up to three axes"),
    ("dilated by", "use windows without dilation"),
    ("float32 has no scale", "scale its weights up, or keep it in float"),
)
ELSE = "an operation with an integer form in its place; see eightbit.graph.forms"


def remedy_for(reason: str) -> str:
    """What to do about a node that is in float for `reason`."""
    return next((remedy for part, remedy in REMEDIES if part in reason), ELSE)
