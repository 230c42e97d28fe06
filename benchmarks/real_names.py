"""The models that `benchmarks/real_models.py` tries: a small one of each family that a library has,
unusual ones first.

`smp` is segmentation_models_pytorch, as architecture/encoder; the configurations of transformers
are those of tests/support/hf.py.
"""

from __future__ import annotations

TIMM = """
fastvit_t8 convnextv2_atto nf_resnet26 halonet26t lambda_resnet26t efficientnet_cc_b0_4e mixnet_s
tresnet_m hrnet_w18_small ghostnetv3_050 resnest14d skresnet18 test_vit test_maxvit test_resnet
test_efficientnet_gn mobilenetv4_hybrid_medium mambaout_femto edgenext_xx_small mobilevit_xxs
mobilevitv2_050 efficientvit_b0 efficientvit_m0 efficientvim_m1 efficientformerv2_s0 levit_128s
levit_conv_128s repvgg_a0 mobileone_s0 repvit_m0_9 fasternet_t0 shvit_s1 starnet_s1 cpubone_nano
csatv2 iformer_t lowformer_b0 convformer_s18 poolformer_s12 poolformerv2_s12 swiftformer_xs
regnetz_005 rexnet_100 dla34 dpn48b selecsls42b inception_next_atto cs3darknet_focus_s
cspnext_tiny hgnetv2_b0 res2net50_14w_8s vovnet39a ese_vovnet19b_dw xcit_nano_12_p16_224 coat_tiny
cait_xxs24_224 convit_tiny crossvit_tiny_240 pit_ti_224 pvt_v2_b0 tiny_vit_5m_224 hiera_tiny_224
mvitv2_tiny swinv2_cr_tiny_224 gcvit_xxtiny nest_tiny volo_d1_224 tnt_s_patch16_224
vit_tiny_patch16_224 vit_relpos_small_patch16_224 eva02_tiny_patch14_224 gmlp_ti16_224
resmlp_12_224 resnet18 resnet26t resnet50d resnext50_32x4d seresnet50 ecaresnet26t resnetaa34d
resnetblur18 resnetv2_18 resnetv2_50x1_bit resnet50_gn legacy_seresnet18 resnetv2_50d_evos
resnetv2_50d_frn botnet26t_256 eca_botnext26ts_256 gcresnet33ts gernet_s regnetz_c16
bat_resnext26ts resnet50_clip resnet32ts regnetx_002 regnety_002 vgg11_bn densenet121 rdnet_tiny
dla60_res2net dpn68 inception_v3 inception_v4 inception_resnet_v2 legacy_xception xception41
cspresnet50 cs3darknet_s darknet21 hgnet_tiny efficientnet_b0 efficientnet_lite0
efficientnet_blur_b0 efficientnetv2_rw_t tf_efficientnet_b0 tf_efficientnetv2_b0 tf_mixnet_s
mnasnet_050 semnasnet_075 spnasnet_100 fbnetc_100 tinynet_e hardcorenas_a mobilenetv1_100
mobilenetv2_035 mobilenetv2_100 mobilenetv3_small_050 mobilenetv3_large_100
tf_mobilenetv3_small_100 mobilenet_edgetpu_v2_xs mobilenetv4_conv_small lcnet_050 lcnetv2_small
fbnetv3_b ghostnet_050 ghostnetv2_100 repghostnet_050 rexnetr_100 nf_regnet_b0 eca_nfnet_l0
dm_nfnet_f0 test_efficientnet convnext_atto convnext_atto_ols convnext_atto_rms convmixer_768_32
fastvit_sa12 fastvit_mci0 caformer_s18 efficientformer_l1 nextvit_small focalnet_tiny_srf
davit_tiny deit_tiny_patch16_224 deit_tiny_distilled_patch16_224 deit3_small_patch16_224
vit_tiny_r_s16_p8_224 vit_srelpos_small_patch16_224 vit_base_patch32_clip_quickgelu_224
vit_small_patch16_dinov3 beit_base_patch16_224 flexivit_small vit_pwee_patch16_reg1_gap_256
samvit_base_patch16_224 sam2_hiera_tiny mvitv2_small_cls pvt_v2_b2_li swin_tiny_patch4_window7_224
swin_s3_tiny_224 swinv2_tiny_window8_256 twins_svt_small twins_pcpvt_small coat_lite_tiny
visformer_tiny maxvit_pico_rw_256 coatnet_pico_rw_224 maxxvit_rmlp_nano_rw_256
coatnext_nano_rw_224 sequencer2d_s mixer_s32_224 gmixer_12_224 vitamin_small_224
naflexvit_base_patch16_gap
"""
TORCHVISION = """
shufflenet_v2_x0_5 googlenet swin_v2_t mvit_v2_s s3d maxvit_t lraspp_mobilenet_v3_large
efficientnet_v2_s vit_b_32 regnet_y_400mf squeezenet1_0 densenet121 mobilenet_v2
deeplabv3_mobilenet_v3_large alexnet vgg11 resnet18 resnet50 resnext50_32x4d squeezenet1_1
inception_v3 shufflenet_v2_x1_0 mobilenet_v3_small mobilenet_v3_large mnasnet0_5 efficientnet_b0
regnet_x_400mf convnext_tiny swin_t fcn_resnet50 r3d_18 mc3_18 r2plus1d_18 swin3d_t
"""
SMP = """
pan/resnet18 segformer/mit_b0 dpt/tu-vit_tiny_patch16_224 pspnet/resnet18
deeplabv3plus/mobilenet_v2 unet/mobileone_s0 upernet/resnet18 unet/dpn68 unet/resnet18
unetplusplus/resnet18 manet/resnet18 linknet/resnet18 fpn/resnet18 deeplabv3/resnet18
deeplabv3plus/resnet18 unet/mobilenet_v2 unet/efficientnet-b0 unet/timm-efficientnet-b0
unet/mit_b0 unet/densenet121 unet/vgg11_bn unet/se_resnet50 unet/xception unet/tu-convnext_atto
unet/timm-skresnet18 fpn/mobilenet_v2 linknet/mobilenet_v2 segformer/mobilenet_v2
manet/efficientnet-b0
"""
ULTRALYTICS = """
yolov10n yolov8n-pose yolov9t yolo12n yolo26n yolov8n-rtdetr yolo11n-seg yolov8n-obb yolov8n-ghost
yolov3-tiny yolov5n yolov6n yolov8n yolov8n-seg yolov8n-cls yolov8n-p2 yolo11n yolo11n-pose
yolo11n-obb yolo11n-cls yolo12n-cls yolo26n-seg yolo26n-pose yolo26n-obb yolo26n-cls
"""
TRANSFORMERS = """
convnextv2 mixtral deberta-v2 swinv2 whisper t5 bloom gpt2 wav2vec2 mobilevit segformer gemma3
albert clip yolos modernbert qwen2-moe falcon-mq bert bert-eager roberta xlm-roberta electra mpnet
distilbert gpt2-eager gpt-neo gpt-neox gptj opt llama mistral qwen2 qwen3 gemma gemma2 phi phi3
falcon olmo2 stablelm starcoder2 cohere smollm3 t5-gated bart pegasus marian vit deit beit dinov2
dinov2-swiglu swin convnext resnet regnet mobilenet-v2 siglip hubert
"""
_LIBRARIES = {
    "transformers": TRANSFORMERS,
    "ultralytics": ULTRALYTICS,
    "smp": SMP,
    "torchvision": TORCHVISION,
    "timm": TIMM,
}


def _in_turns() -> list[str]:
    """All names, the libraries one after another, so that a part of a run has seen each."""
    left = {library: text.split() for library, text in _LIBRARIES.items()}
    most = max(map(len, left.values()))
    return [
        f"{lib}:{names[i]}" for i in range(most) for lib, names in left.items() if i < len(names)
    ]


NAMES = _in_turns()
