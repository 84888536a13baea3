"""EfficientNet-PyTorch's names of the layers of EfficientNet-Lite0."""

from __future__ import annotations

from layerwise.importing.tables import Table, numbered

_ROWS = (1, 2, 2, 3, 3, 4, 1)
_BLOCKS = tuple(f"features.bottleneck{row}.bottleneck{row}_{number}"
                for row, repeats in enumerate(_ROWS, 1) for number in range(1, repeats + 1))  # fmt: skip

LITE0: Table = (
    (r"^_fc\.", "head.fc."),
    (r"^_conv_stem\.", "features.conv1.conv."),
    (r"^_bn0\.", "features.conv1.bn."),
    (r"^_conv_head\.", "features.conv2.conv."),
    (r"^_bn1\.", "features.conv2.bn."),
    *numbered("_blocks.", dict(enumerate(_BLOCKS))),
    (r"\._(expand|depthwise|project)_conv\.", ".{1}."),
    (r"\._bn0\.", ".expand_bn."),
    (r"\._bn1\.", ".depthwise_bn."),
    (r"\._bn2\.", ".project_bn."),
)
