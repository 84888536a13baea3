"""What each network must count: a row a name, a table a family.

name: learnable parameters (auxiliary heads left out), multiply-adds of convolutions and fully connected layers for one
picture of the paper's size, and the side of a small square picture that the other tests of test_models.py use.
"""

from __future__ import annotations

LENET = {
    "lenet1989": (9_760, 63_660, 16),
    "lenet1990": (2_578, 91_520, 28),
    "lenet5": (60_806, 326_520, 32),
    "lenet5_1998": (60_000, 325_680, 32),
}
ALEXNET = {
    "alexnet": (60_965_224, 724_406_816, 67),
    "alexnet_two_gpus": (60_965_224, 724_406_816, 67),
    "alexnet_one_gpu": (40_702_632, 335_259_920, 67),
    "alexnet_one_gpu_conv5_256": (59_798_312, 391_514_384, 67),
    "alexnet_six_conv": (61_260_392, 735_023_648, 67),
    "alexnet_without_lrn": (60_965_224, 724_406_816, 67),
    "alexnet_adjacent": (60_965_224, 724_406_816, 67),
    "alexnet_without_dropout": (60_965_224, 724_406_816, 67),
    "alexnet_biases_zero": (60_965_224, 724_406_816, 67),
    "alexnet_without_conv3": (59_858_920, 537_506_336, 67),
    "alexnet_without_conv4": (60_301_288, 612_266_528, 67),
    "alexnet_one_tower": (61_100_840, 714_188_480, 67),
}
FOUR_LAYER = {
    "four_layer": (89_578, 12_298_240, 8),
    "four_layer_tanh": (89_578, 12_298_240, 8),
    "four_layer_lrn": (89_578, 12_298_240, 8),
    "four_layer_local": (1_116_490, 18_517_248, 4),
    "four_layer_local_lrn": (1_116_490, 18_517_248, 4),
    "four_layer_adjacent": (89_578, 12_298_240, 8),
    "four_layer_hidden": (609_258, 12_817_408, 8),
    "four_layer_hidden_without_dropout": (609_258, 12_817_408, 8),
    "four_layer_28": (85_098, 9_413_760, 28),
    "four_layer_tanh_28": (85_098, 9_413_760, 28),
    "four_layer_lrn_28": (85_098, 9_413_760, 28),
    "four_layer_adjacent_28": (85_098, 9_413_760, 28),
    "four_layer_hidden_28": (379_882, 9_708_032, 28),
    "four_layer_hidden_without_dropout_28": (379_882, 9_708_032, 28),
    "four_layer_groups_28": (72_298, 6_904_960, 28),
    "four_layer_half_28": (23_354, 2_825_280, 28),
    "four_layer_bias_one_28": (85_098, 9_413_760, 28),
    "four_layer_without_conv2_28": (59_466, 4_396_160, 28),
}
ZFNET = {
    "zfnet": (62_357_608, 1_168_032_896, 63),
    "zfnet_wide": (107_627_624, 2_476_704_896, 63),
    "zfnet512": (87_250_536, 1_481_727_008, 59),
}
NIN = {"nin": (966_986, 222_486_528, 8)}
MAXOUT = {"maxout": (16_247_830, 732_290_696, 8)}
VGG = {
    "vgg11": (132_863_336, 7_609_090_048, 32),
    "vgg11_lrn": (132_863_336, 7_609_090_048, 32),
    "vgg13": (133_047_848, 11_308_466_176, 32),
    "vgg16_c": (133_638_952, 11_770_888_192, 32),
    "vgg16": (138_357_544, 15_470_264_320, 32),
    "vgg19": (143_667_240, 19_632_062_464, 32),
    "vgg11_bn": (132_868_840, 7_609_090_048, 32),
    "vgg13_bn": (133_053_736, 11_308_466_176, 32),
    "vgg16_bn": (138_365_992, 15_470_264_320, 32),
    "vgg19_bn": (143_678_248, 19_632_062_464, 32),
}
DSN = {"dsn": (966_986, 222_486_528, 8)}
FITNET = {
    "fitnet19": (2_548_602, 381_749_128, 8),
    "fitnet11_250k": (251_194, 30_150_024, 8),
    "fitnet11_862k": (864_122, 107_775_880, 8),
}
HIGHWAY = {
    "highway19": (2_256_838, 330_826_728, 8),
    "highway32": (1_252_570, 314_344_064, 8),
    "highway19_plain": (1_193_526, 172_164_072, 8),
    "highway32_plain": (649_930, 160_400_000, 8),
}
GOOGLENET = {
    "googlenet": (6_998_552, 1_582_671_872, 223),
    "googlenet_3x3": (6_624_904, 1_498_376_192, 32),
}
INCEPTION = {
    "inception_v2": (11_295_240, 2_032_600_064, 32),
    "inception_v3": (23_834_568, 5_713_216_096, 299),
    "inception_v4": (42_679_816, 12_253_974_624, 75),
    "inception_resnet_v1": (22_756_328, 6_206_361_696, 75),
    "inception_resnet_v2": (55_843_464, 13_155_794_016, 75),
    "inception_resnet_v2_figures": (32_433_928, 9_257_953_632, 75),
}
XCEPTION = {"xception": (22_855_952, 8_357_403_496, 32)}
RESNET = {
    "resnet18": (11_689_512, 1_814_073_344, 33),
    "resnet34": (21_797_672, 3_663_761_408, 33),
    "resnet50": (25_557_032, 3_857_973_248, 33),
    "resnet101": (44_549_160, 7_570_194_432, 33),
    "resnet152": (60_192_808, 11_282_415_616, 33),
    "plain18": (11_515_688, 1_794_805_760, 33),
    "plain34": (21_623_848, 3_644_493_824, 33),
    "resnet18_a": (11_515_688, 1_794_805_760, 33),
    "resnet34_a": (21_623_848, 3_644_493_824, 33),
    "resnet18_c": (12_043_816, 1_878_298_624, 33),
    "resnet34_c": (22_716_840, 3_830_747_136, 33),
    "plain50": (22_780_456, 3_498_311_680, 33),
    "plain101": (41_772_584, 7_210_532_864, 33),
    "resnet50_v1_5": (25_557_032, 4_089_184_256, 33),
    "resnet101_v1_5": (44_549_160, 7_801_405_440, 33),
    "resnet152_v1_5": (60_192_808, 11_513_626_624, 33),
    "resnet20": (269_722, 40_551_040, 8),
    "resnet32": (464_154, 68_862_592, 8),
    "resnet44": (658_586, 97_174_144, 8),
    "resnet56": (853_018, 125_485_696, 8),
    "resnet110": (1_727_962, 252_887_680, 8),
    "resnet1202": (19_421_274, 2_829_238_912, 8),
    "plain20": (269_722, 40_551_040, 8),
    "plain32": (464_154, 68_862_592, 8),
    "plain44": (658_586, 97_174_144, 8),
    "plain56": (853_018, 125_485_696, 8),
    "plain110": (1_727_962, 252_887_680, 8),
    "resnet20_one_layer": (269_722, 40_551_040, 8),
    "resnet20_three_layer": (269_722, 40_551_040, 8),
    "resnet56_one_layer": (853_018, 125_485_696, 8),
    "resnet20_bottleneck": (177_498, 25_348_608, 8),
    "resnet56_bottleneck": (548_442, 78_825_984, 8),
    "plain20_bottleneck": (177_498, 25_348_608, 8),
    "plain56_bottleneck": (548_442, 78_825_984, 8),
}
PREACT_RESNET = {
    "preact_resnet152": (60_185_128, 11_282_415_616, 33),
    "preact_resnet200": (64_666_152, 14_776_270_848, 33),
    "preact_resnet110": (1_727_962, 252_887_680, 8),
    "preact_resnet164": (1_703_258, 244_500_992, 8),
    "preact_resnet1001": (10_327_706, 1_487_849_984, 8),
}
WIDE_RESNET = {
    "wide_resnet50_2": (68_883_240, 11_398_021_120, 33),
    "wide_resnet101_2": (126_886_696, 22_753_050_624, 33),
    "wrn": (36_479_194, 5_243_328_768, 8),
    "wrn16_8": (10_961_370, 1_548_145_664, 8),
    "wrn16_10": (17_116_634, 2_412_173_568, 8),
    "wrn28_10": (36_479_194, 5_243_328_768, 8),
    "wrn40_1": (563_930, 83_280_512, 8),
    "wrn40_4": (8_949_210, 1_298_582_016, 8),
    "wrn40_8": (35_748_314, 5_172_024_320, 8),
    "wrn16_2": (691_674, 101_106_944, 8),
}
RESNEXT = {
    "resnext50_2x40d": (25_425_000, 4_124_508_160, 33),
    "resnext50_4x24d": (25_292_968, 4_159_832_064, 33),
    "resnext50_8x14d": (25_603_016, 4_267_409_408, 33),
    "resnext50_32x4d": (25_028_904, 4_230_479_872, 33),
    "resnext101_32x4d": (44_177_704, 7_969_996_800, 33),
    "resnext101_64x4d": (83_455_272, 15_460_270_080, 33),
    "resnext101_32x8d": (88_791_336, 16_414_015_488, 33),
    "resnext29_8x64d": (34_426_698, 5_387_266_048, 8),
    "resnext29_16x64d": (68_155_210, 10_688_866_304, 8),
    "resnext29_32x4d": (4_775_754, 774_055_936, 8),
}
DENSENET = {
    "densenet121": (7_978_856, 2_834_161_664, 64),
    "densenet169": (14_149_480, 3_359_843_328, 64),
    "densenet201": (20_013_928, 4_291_365_888, 64),
    "densenet264": (33_337_704, 5_751_653_376, 64),
    "densenet161": (28_681_000, 7_727_907_072, 64),
    "densenet40_k12": (1_019_722, 264_812_928, 8),
    "densenet100_k12": (6_979_642, 1_769_516_448, 8),
    "densenet100_k24": (27_249_082, 6_889_347_744, 8),
    "densenet_bc100_k12": (769_162, 287_929_692, 8),
    "densenet_bc250_k24": (15_324_406, 5_418_785_724, 8),
    "densenet_bc190_k40": (25_624_430, 9_301_945_740, 8),
    "densenet_bc40_k12": (176_122, 72_365_352, 8),
    "densenet_c40_k12": (599_050, 205_906_452, 8),
    "densenet_c100_k12": (4_068_490, 1_324_548_732, 8),
}
NASNET = {
    "nasnet_mobile": (5_289_978, 568_234_858, 35),
    "nasnet_large": (88_753_150, 23_783_414_658, 35),
    "nasnet_cifar": (3_328_234, 525_786_624, 8),
}
MOBILENET = {
    "mobilenet": (4_231_976, 568_740_352, 33),
    "mobilenet_100": (4_231_976, 568_740_352, 33),
    "mobilenet_075": (2_585_560, 325_400_448, 33),
    "mobilenet_050": (1_331_592, 149_497_088, 33),
    "mobilenet_025": (470_072, 41_030_272, 33),
    "mobilenet_full_convolutions": (29_294_088, 4_867_293_184, 33),
    "mobilenet_shallow": (2_887_976, 307_323_392, 33),
    "mobilenet_100_relu6": (4_231_976, 568_740_352, 33),
}
MOBILENET_V2 = {
    "mobilenet_v2": (3_504_872, 300_774_272, 33),
    "mobilenet_v2_140": (6_108_776, 582_195_824, 33),
    "mobilenet_v2_100": (3_504_872, 300_774_272, 33),
    "mobilenet_v2_075": (2_636_424, 209_069_792, 33),
    "mobilenet_v2_050": (1_968_680, 97_131_840, 33),
}
EFFICIENTNET_LITE = {
    "efficientnet_lite0": (4_652_008, 385_187_552, 33),
}
AIRNET = {
    "airnet": (1_971_640, 118_147_360, 12),
    "airnet95": (4_604_728, 301_560_864, 12),
    "airnet_narrow": (289_768, 11_685_152, 12),
}
COUNTS: dict[str, tuple[int, int, int]] = {
    **LENET,
    **ALEXNET,
    **FOUR_LAYER,
    **ZFNET,
    **NIN,
    **MAXOUT,
    **VGG,
    **DSN,
    **FITNET,
    **HIGHWAY,
    **GOOGLENET,
    **RESNET,
    **PREACT_RESNET,
    **WIDE_RESNET,
    **RESNEXT,
    **DENSENET,
    **NASNET,
    **MOBILENET,
    **MOBILENET_V2,
    **EFFICIENTNET_LITE,
    **INCEPTION,
    **XCEPTION,
    **AIRNET,
}
# What makes a network small enough for the tests that compute with it, where its fully connected layers fit one size
# of map and hold a hundred million weights. Counts and shapes are those of the whole network.
SMALL_ARGUMENTS: dict[str, dict[str, int]] = {
    **{name: {"map_side": 1, "hidden_features": 32} for name in (*ALEXNET, *ZFNET, *VGG)},
    **{name: {"map_side": 1} for name in FOUR_LAYER if not name.endswith("_28")},
    "maxout": {"map_side": 2},
    "dsn": {"input_side": 8},
}
