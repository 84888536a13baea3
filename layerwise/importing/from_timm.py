"""timm's names of layers, family by family, where they aren't torchvision's."""

from __future__ import annotations

from layerwise.importing.tables import Table, numbered

XCEPTION: Table = (
    (r"^fc\.", "head.fc."),
    (r"^(conv|bn)([12])\.", "features.entry_flow.conv{2}.{1}."),
    (r"^(conv|bn)([34])\.", "features.exit_flow.conv{2}.{1}."),
    (r"^block([123])\.", "features.entry_flow.block{1}."),
    (r"^block([4-9]|1[01])\.", "features.middle_flow.block{1}."),
    (r"^block12\.", "features.exit_flow.block12."),
    (r"\.skip\.", ".shortcut.conv."),
    (r"\.skipbn\.", ".shortcut.bn."),
    # The first block begins without ReLU, so its parts are counted from one less.
    *((rf"\.block1\.rep\.{number}\.", f".block1.branch.layer{layer}.{part}.")
      for number, layer, part in ((0, 1, "conv"), (1, 1, "bn"), (3, 2, "conv"), (4, 2, "bn"))),
    *((rf"\.rep\.{number}\.", f".branch.layer{layer}.{part}.")
      for number, layer, part in ((1, 1, "conv"), (2, 1, "bn"), (4, 2, "conv"), (5, 2, "bn"), (7, 3, "conv"),
                                  (8, 3, "bn"))),
    (r"\.conv\.conv1\.", ".conv.depthwise."),
)  # fmt: skip

INCEPTION_V4: Table = (
    (r"^last_linear\.", "head.fc."),
    *numbered("features.", {
        **{number: f"features.stem.conv{number + 1}" for number in range(3)},
        4: "features.stem.mixed2",
        **{5 + number: f"features.inception_a.a{number}" for number in range(1, 5)},
        10: "features.reduction_a",
        **{10 + number: f"features.inception_b.b{number}" for number in range(1, 8)},
        18: "features.reduction_b",
        **{18 + number: f"features.inception_c.c{number}" for number in range(1, 4)},
    }),
    (r"^features\.3\.conv\.", "features.stem.mixed1.branch2."),
    (r"^features\.5\.conv\.", "features.stem.mixed3.branch1."),
    (r"\.branch1_1a\.", ".branch2.expanded.branch1."),
    (r"\.branch1_1b\.", ".branch2.expanded.branch2."),
    (r"\.branch2_3a\.", ".branch3.expanded.branch1."),
    (r"\.branch2_3b\.", ".branch3.expanded.branch2."),
    (r"\.branch([12])_(\d)\.", ".branch{1+1}.layer{2+1}."),
    (r"\.branch3\.1\.", ".branch4.layer1."),
    (r"\.branch([012])\.(\d)\.", ".branch{1+1}.layer{2+1}."),
    (r"\.branch0\.", ".branch1.layer1."),
)  # fmt: skip

INCEPTION_RESNET_V2: Table = (
    (r"^classif\.", "head.fc."),
    (r"^conv2d_7b\.", "features.conv_7b."),
    *((rf"^conv2d_{name}\.", f"features.stem.conv{number}.")
      for number, name in enumerate(("1a", "2a", "2b", "3b", "4a"), 1)),
    (r"^mixed_5b\.", "features.stem.mixed_5b."),
    (r"^mixed_6a\.", "features.reduction_a."),
    (r"^mixed_7a\.", "features.reduction_b."),
    (r"^repeat\.(\d+)\.", "features.inception_resnet_a.a{1+1}.branches."),
    (r"^repeat_1\.(\d+)\.", "features.inception_resnet_b.b{1+1}.branches."),
    (r"^repeat_2\.(\d+)\.", "features.inception_resnet_c.c{1+1}.branches."),
    (r"^block8\.", "features.inception_resnet_c.c10.branches."),
    (r"\.branches\.conv2d\.", ".linear."),
    (r"\.branch3\.1\.", ".branch4.layer1."),
    (r"\.branch([12])\.(\d)\.", ".branch{1+1}.layer{2+1}."),
    (r"\.branch0\.(\d)\.", ".branch1.layer{1+1}."),
    (r"\.branch0\.", ".branch1.layer1."),
)  # fmt: skip

NASNET: Table = (
    (r"^last_linear\.", "head.fc."),
    (r"^conv0\.", "features.conv0."),
    (r"^cell_stem_(\d)\.", "features.stem_{1}."),
    (r"^cell_(\d+)\.", "features.normal_{1}."),
    (r"^reduction_cell_(\d)\.", "features.reduction_{1}."),
    (r"\.conv_1x1\.", ".current."),
    (r"\.conv_prev_1x1\.", ".previous."),
    (r"\.path_([12])\.", ".previous.path{1}."),
    (r"\.final_path_bn\.", ".previous.bn."),
    (r"\.comb_iter_(\d)_", ".block{1}_"),
    (r"\.separable_([12])\.(depthwise|pointwise)_conv2d\.", ".separable{1}.{2}."),
    (r"\.bn_sep_([12])\.", ".bn{1}."),
)

# timm's stages of MobileNet, of so many blocks each; ours are numbered through.
MOBILENET_STAGES = (1, 2, 2, 6, 2)
MOBILENET: Table = (
    (r"^classifier\.", "head.fc."),
    (r"^conv_stem\.", "features.conv1.conv."),
    (r"^bn1\.", "features.conv1.bn."),
    *((rf"^blocks\.{stage}\.{number}\.", f"features.block{sum(MOBILENET_STAGES[:stage]) + number + 1}.")
      for stage, depth in enumerate(MOBILENET_STAGES) for number in range(depth)),
    (r"\.conv_dw\.", ".depthwise."),
    (r"\.bn1\.", ".depthwise_bn."),
    (r"\.conv_pw\.", ".pointwise."),
    (r"\.bn2\.", ".pointwise_bn."),
)  # fmt: skip

MOBILENET_V2: Table = (
    (r"^classifier\.", "head.fc."),
    (r"^conv_stem\.", "features.conv1.conv."),
    (r"^bn1\.", "features.conv1.bn."),
    (r"^conv_head\.", "features.conv2.conv."),
    (r"^bn2\.", "features.conv2.bn."),
    (r"^blocks\.(\d)\.(\d)\.", "features.bottleneck{1+1}.bottleneck{1+1}_{2+1}."),
    # The first bottleneck has no expansion: its 1x1 convolution is the projection.
    (r"(\.bottleneck1_1)\.bn1\.", "{1}.depthwise_bn."),
    (r"(\.bottleneck1_1)\.conv_pw\.", "{1}.project."),
    (r"(\.bottleneck1_1)\.bn2\.", "{1}.project_bn."),
    (r"\.conv_pw\.", ".expand."),
    (r"(_\d)\.bn1\.", "{1}.expand_bn."),
    (r"\.conv_dw\.", ".depthwise."),
    (r"(_\d)\.bn2\.", "{1}.depthwise_bn."),
    (r"\.conv_pwl\.", ".project."),
    (r"\.bn3\.", ".project_bn."),
)
