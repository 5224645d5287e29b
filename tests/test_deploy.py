"""A model that has left Python: the same numbers from ONNX and torch.export, whole files, clear errors, and what 8 bits change."""
import json, shutil, sys
from copy import copy
from pathlib import Path
from types import SimpleNamespace
import pytest
import torch
from PIL import Image
from torch import nn
from person_search_nb import deploy
from person_search_nb.datasets import open_dataset
from person_search_nb.model_files import save_model, shipped_trunk
from person_search_nb.evaluation import evaluate
from person_search_nb.models import build_model, load_model
from person_search_nb.gallery import fingerprint
from person_search_nb.search import Gallery
from person_search_nb.indexing import build_gallery
from person_search_nb.deployable import deployable
from person_search_nb.deploy import export_onnx, export_program, head_path, part_errors
from person_search_nb.deployed import Deployed, quantise
from person_search_nb.model_commands import export

SPEC = 'synth:tiny?test_scenes=12&test_ids=8&gallery=8&queries=4'
pytest.importorskip('onnxruntime'); pytest.importorskip('onnxscript')


def lively(name, width=0.125, **kw):
    "A small network with norms that do something, and scores spread wide enough to be ranked."
    torch.manual_seed(3)
    net = build_model(name, 5, width=width, **kw).eval()
    with torch.no_grad():
        for m in net.modules():
            if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)):
                m.weight.uniform_(.4, .7); m.bias.uniform_(-.2, .2); m.running_mean.uniform_(-.2, .2); m.running_var.uniform_(.7, 1.3)
        net.rpn.objectness.weight.mul_(20); net.score.weight.mul_(20)
    return net


def close(a, b, size):
    "The same people in the same order, boxes to 1e-4 of the picture."
    assert [len(v) for v in a.values()] == [len(v) for v in b.values()]
    for k, most in dict(boxes=1e-4 * max(size), scores=1e-4, embeddings=1e-4).items():
        assert a[k].shape == b[k].shape and (a[k].numel() == 0 or (a[k] - b[k]).abs().max() <= most), k


def shipped_student():
    net = load_model(shipped_trunk('hdl-student-fast-taught'))
    net.size = (192, 336)  # of its training, as `train` notes it
    return net


@pytest.fixture(scope='module')
def student(): return shipped_student()


def write_forms(d):
    "The shipped student in all three forms; it is traced once, and the ONNX graph of the command is kept before it is quantised."
    student, made = shipped_student(), {}
    save_model(student, d/'student.safetensors')
    def keep(net, path):
        errors = export_onnx(net, path)
        for made, kept in ((path, d/'s.onnx'), (head_path(path), d/'s.head.onnx')): shutil.copy(made, kept)
        return errors
    def trace(parts, programs=deploy.programs): return made or made.update(programs(parts)) or made
    with pytest.MonkeyPatch.context() as m:
        m.setattr(deploy, 'programs', trace)
        m.setattr(deploy, 'export_onnx', keep)
        export(str(d/'student.safetensors'), str(d/'int8.onnx'), int8='synth:tiny?train_scenes=12&train_ids=10', scenes=8)
        export_program(student, d/'s.pt2')


@pytest.fixture(scope='module')
def folder(made_once):
    "What `write_forms` writes."
    return made_once('deploy', write_forms)


@pytest.fixture(scope='module')
def traced(folder):
    "Both parts of the shipped student as graphs."
    return {k: torch.export.load(p) for k, p in dict(scene=folder/'s.pt2', head=folder/'s.head.pt2').items()}


@pytest.fixture(scope='module')
def gallery(): return open_dataset(SPEC, 'gallery')


def trusted(path): return Deployed(path, trust=True)

@pytest.fixture(scope='module')
def forms(folder):
    "Read once: a program takes a second."
    return {form: trusted(folder/form) for form in ('s.onnx', 's.pt2')}

FORMS = pytest.mark.parametrize('form', ['s.onnx', 's.pt2'])


@FORMS
def test_equal_on_synthetic_scenes(student, forms, gallery, form):
    net = forms[form]
    for i in range(4):
        image = gallery[i][0]
        with torch.no_grad(): close(net([image])[0], student([image])[0], image.shape[1:])


@FORMS
@pytest.mark.parametrize('size', [(97, 131), (224, 333), (34, 200), (401, 77)])
def test_equal_at_every_size(student, forms, gallery, form, size):
    image = nn.functional.interpolate(gallery[1][0][None].float(), size, mode='bilinear', antialias=True)[0]
    with torch.no_grad(): close(forms[form]([image])[0], student([image])[0], size)


@FORMS
def test_several_pictures_of_several_sizes(student, forms, gallery, form):
    "Each is looked at alone: what stands beside it in the list says nothing about it."
    images = [gallery[0][0], gallery[1][0][:, :200, :301]]
    with torch.no_grad():
        for found, image in zip(forms[form](images), images): close(found, student([image])[0], image.shape[1:])


@FORMS
def test_queries(student, forms, gallery, form):
    images, boxes = zip(*((gallery[i][0], gallery.truth(i)['boxes']) for i in range(3)))
    net = forms[form]
    with torch.no_grad(): want = torch.cat([student.embed([i], [b]) for i, b in zip(images, boxes)])
    got = net.embed(images, boxes)
    assert (got - want).abs().max() < 1e-4 and torch.allclose(got.norm(dim=1), torch.ones(len(got)))
    assert net.embed(images[:1], [torch.zeros(0, 4)]).shape == (0, want.shape[1])
    with pytest.raises(ValueError, match='boxes of image 0'): net.embed(images[:1], [torch.tensor([[50., 20, 10, 60]])])


@FORMS
def test_nobody_there(forms, form):
    net = copy(forms[form])
    net.about = net.about | dict(score_threshold=2.)
    found = net([torch.zeros(3, 90, 70)])[0]
    assert [tuple(v.shape) for v in found.values()] == [(0, 4), (0,), (0, net.about['dim'])]
    with pytest.raises(ValueError, match='20x70 px is too small'): net([torch.zeros(3, 20, 70)])


def test_real_scenes(student, forms, shared):
    import numpy as np
    from PIL import Image
    frames = sorted((shared/'real'/'prw16').rglob('*.jpg'))[:3]
    if not frames: pytest.skip('no real frames here')
    for path in frames:
        image = torch.from_numpy(np.asarray(Image.open(path).convert('RGB').resize((960, 540)))).permute(2, 0, 1).float() / 255
        with torch.no_grad(): want = student([image])[0]
        for net in forms.values(): close(net([image])[0], want, image.shape[1:])


# the teacher with a shorter trunk: the exporter's time is by the layer; tests/test_page.py writes the whole one, and oim has its trunk
@pytest.mark.parametrize('name, more, export', [('hdl-teacher', dict(trunk='resnet18'), 'onnx'), ('hdl-student', {}, 'pt2'), ('oim', {}, 'pt2')])
def test_other_systems(tmp_path, name, more, export):
    net, path = lively(name, **more), tmp_path/f'net.{export}'
    errors = (export_onnx if export == 'onnx' else export_program)(net, path)
    assert {'map', 'scores', 'boxes', 'embeddings', 'head scores', 'refined boxes'} <= set(errors) and max(errors.values()) < 1e-4
    far = part_errors(deployable(net), trusted(path), sizes=((75, 203), (190, 66), (96, 129), (96, 131)))  # the guards of torch 2.11 refuse some of them
    assert max(far.values()) < 1e-4, far


@FORMS
def test_parts_at_other_sizes(student, forms, form):
    far = part_errors(deployable(student), forms[form], sizes=((75, 203), (190, 66)))
    assert {'map', 'scores', 'boxes', 'embeddings', 'head scores', 'refined boxes'} <= set(far) and max(far.values()) < 1e-4, far


def test_deployable_is_the_model():
    "Folded, factored and cut, but not changed; and the model itself is left alone."
    net = lively('hdl-teacher')
    before = {k: v.clone() for k, v in net.state_dict().items()}
    image, boxes = torch.rand(3, 120, 150), torch.tensor([[10., 5, 50, 100], [-5, 30, 40, 130]])
    with torch.no_grad(): assert (deployable(net).embed([image], [boxes]) - net.embed([image], [boxes])).abs().max() < 1e-4
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_systems_that_cannot_be_cut():
    for name in ('e2e-rss', 'attention-embedding', 'clsa', 'qeeps'):
        with pytest.raises(ValueError, match=f'{name} cannot be exported'): deployable(build_model(name, 5, width=0.125))


def of_timm(name):
    pytest.importorskip('timm')
    net = lively('hdl-student-fast', 1., trunk=f'timm:{name}', rpn_channels=16)
    return net, torch.rand(3, 120, 150), torch.tensor([[10., 5, 50, 100], [-5, 30, 40, 130]])


@pytest.mark.parametrize('name', ['test_efficientnet', 'test_resnet'])
def test_norms_of_timm_are_not_lost(name):
    "They end in an activation, which folding must not lose."
    net, image, boxes = of_timm(name)
    parts = deployable(net)
    with torch.no_grad():
        want = net.embed([image], [boxes]), net.trunk((image[None] - net.mean) / net.std), net([image])[0]['scores']
        found = parts.embed([image], [boxes]), parts.parts['scene'](image[None])[0], parts([image])[0]['scores']
    for a, b in zip(found, want, strict=True): torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


@pytest.mark.parametrize('name, write, file', [pytest.param('test_efficientnet', export_onnx, 'net.onnx', marks=pytest.mark.slow), ('test_resnet', export_program, 'net.pt2')])
def test_a_network_of_timm(tmp_path, name, write, file):
    "The files say what the network says."
    net, image, boxes = of_timm(name)
    with torch.no_grad(): want = net.embed([image], [boxes]), net.trunk((image[None] - net.mean) / net.std), net([image])[0]['scores']
    write(net, tmp_path/file)
    other = trusted(tmp_path/file)
    with torch.no_grad(): found = other.embed([image], [boxes]), other.parts['scene'](image[None])[0], other([image])[0]['scores']
    for a, b in zip(found, want): torch.testing.assert_close(a, b, atol=1e-4, rtol=0)
    assert max(part_errors(deployable(net), other, sizes=((75, 203), (190, 66))).values()) < 1e-4


def test_norms_of_a_users_trunk_are_not_lost():
    "A norm of a class of its own, and one that is called before the convolution it stands behind, stay."
    class Loud(nn.BatchNorm2d):
        def forward(self, x): return super().forward(x).relu()
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(c, c, 3, padding=1), nn.BatchNorm2d(c)
        def forward(self, x): return self.conv(self.norm(x))
    for own in (lambda: nn.Sequential(nn.Conv2d(c, c, 3, padding=1), Loud(c)), Backwards):
        net = build_model('hdl-student-fast', 5, width=0.125)
        c = net.stem[0].out_channels
        net.stem.append(own())
        for m in net.eval().modules():
            if isinstance(m, nn.BatchNorm2d): m.running_mean.uniform_(-.5, .5); m.running_var.uniform_(.5, 2)
        image, boxes = torch.rand(3, 120, 150), torch.tensor([[10., 5, 50, 100]])
        with torch.no_grad(): torch.testing.assert_close(deployable(net).embed([image], [boxes]), net.embed([image], [boxes]), atol=1e-4, rtol=0)


@pytest.mark.parametrize('name, why', [('swin_tiny_patch4_window7_224', 'how its SwinTransformerBlock pads'), ('tf_efficientnet_lite0', 'how its Conv2dSame pads'),
                                       ('efficientvit_b0', 'PyTorch can make no graph of its head part')])
def test_networks_of_timm_that_look_at_sizes(tmp_path, name, why):
    "Refused in one line that says what can be exported, before the exporter thinks about it for minutes."
    pytest.importorskip('timm')
    net = build_model('hdl-student-fast', 5, trunk=f'timm:{name}', rpn_channels=16).eval()
    with pytest.raises(ValueError, match=f'^trunk=timm:{name} cannot be exported: {why}.*timm:resnet18') as e: export_onnx(net, tmp_path/'net.onnx')
    assert '\n' not in str(e.value) and len(str(e.value)) < 500 and not list(tmp_path.iterdir())


def test_difference_is_refused(tmp_path, student, folder, traced, monkeypatch):
    "An export that says something else is not written."
    monkeypatch.setattr(deploy, 'programs', lambda parts: traced)
    monkeypatch.setattr(deploy, 'part_errors', lambda *a: {'scores': float('nan')})
    with pytest.raises(ValueError, match='not written.*scores by nan'): export_program(student, tmp_path/'s.pt2')
    assert not list(tmp_path.iterdir())


def test_graphs_of_another_network_are_refused(tmp_path, folder, traced, monkeypatch):
    "Of the same shapes, and with other weights."
    import onnx
    of = {id(traced['scene']): onnx.load(folder/'s.onnx'), id(traced['head']): deploy.without_pooling(onnx.load(folder/'s.head.onnx'))}
    monkeypatch.setattr(torch.onnx, 'export', lambda program, **kw: SimpleNamespace(model_proto=of[id(program)]))  # what it gave for these graphs
    for write in (export_onnx, export_program):
        with pytest.raises(ValueError, match='not written.*something else'): write(load_model(shipped_trunk('hdl-student-fast')), tmp_path/'s', traced)
    assert not list(tmp_path.iterdir())


def test_metadata(student, folder, forms):
    import onnx
    about = json.loads({p.key: p.value for p in onnx.load(folder/'s.onnx').metadata_props}['person_search_nb'])
    assert about['fingerprint'] == fingerprint(student) == forms['s.pt2'].about['fingerprint']
    assert about['config'] == student.config and about['detections'] == student.detections and about['proposals'] == student.rpn.post_nms[1]
    assert Deployed(folder/'int8.onnx').about['precision'] == 'int8' and max(about['errors'].values()) < 1e-4
    other = load_model(shipped_trunk('hdl-student-fast'))
    assert fingerprint(other) != fingerprint(student)
    with torch.no_grad(): student.id_loss.classifier.bias += 1
    assert fingerprint(student) == about['fingerprint']  # the classifier is not deployed


def test_nothing_of_this_computer(folder):
    "Exporters note where the code lay; whoever gets the file need not know."
    import zipfile
    here = str(Path(deploy.__file__).parent).encode()
    for path in folder.iterdir():
        data = path.read_bytes()
        if path.suffix == '.pt2':
            with zipfile.ZipFile(path) as z: data = b''.join(map(z.read, z.namelist()))
        assert here not in data, path.name


def test_the_head_alone_pools(student, folder, gallery):
    "The head's file with ONNX's RoIAlign, as someone without this library runs it."
    import onnxruntime as ort
    image, boxes = gallery[2][0], gallery.truth(2)['boxes']
    scene, head = (ort.InferenceSession(str(p), providers=['CPUExecutionProvider']) for p in (folder/'s.onnx', folder/'s.head.onnx'))
    features = scene.run(['features'], dict(image=image[None].numpy()))[0]
    got = head.run(['embeddings'], dict(features=features, boxes=boxes.numpy()))[0]
    with torch.no_grad(): assert (torch.from_numpy(got) - student.embed([image], [boxes])).abs().max() < 1e-4


def test_search_and_evaluate(student, folder, gallery):
    queries = open_dataset(SPEC, 'query')
    want, got = (evaluate(n, gallery, queries, batch_size=1, progress=False) for n in (student, Deployed(folder/'s.onnx')))
    assert all(abs(want[k] - got[k]) < 1e-3 for k in ('mAP', 'top1', 'det_ap'))
    net = Deployed(folder/'s.onnx')
    people = Gallery.from_model(net, gallery, progress=False)
    m = people.search(net.embed([gallery[0][0]], [torch.from_numpy(people.det_boxes[:1])])[0].numpy(), 1, score_threshold=0.)[0]
    assert m.detection == 0 and m.similarity > 0.999


def test_int8_is_close(folder, gallery):
    full, small = Deployed(folder/'s.onnx'), Deployed(folder/'int8.onnx')
    images, boxes = zip(*((gallery[i][0], gallery.truth(i)['boxes']) for i in range(4)))
    cosine = (full.embed(images, boxes) * small.embed(images, boxes)).sum(1)
    assert cosine.median() > 0.9
    assert sum((folder/n).stat().st_size for n in ('int8.onnx', 'int8.head.onnx')) < 0.8 * sum((folder/n).stat().st_size for n in ('s.onnx', 's.head.onnx'))
    assert all(torch.isfinite(v).all() for f in small(images) for v in f.values())
    with pytest.raises(ValueError, match='already int8'): quantise(folder/'int8.onnx', folder/'x.onnx', gallery, 2, progress=False)
    with pytest.raises(ValueError, match='no scenes'): quantise(folder/'s.onnx', folder/'x.onnx', [], 2, progress=False)


def test_a_gallery_in_float_is_not_searched_in_8_bits(student, folder, gallery, tmp_path):
    "Both had one fingerprint, and similarities of float and int8 were compared without a word."
    full, small = Deployed(folder/'s.onnx'), Deployed(folder/'int8.onnx')
    box = gallery.truth(0)['boxes'][0].numpy()
    made = {k: Gallery.from_model(net, gallery, progress=False) for k, net in (('float', full), ('int8', small))}
    for net, other in (small, 'float'), (full, 'int8'), (student, 'int8'):
        with pytest.raises(ValueError, match='was made with another network, or in another precision'): made[other].embed(net, 0, box)
    for net, own in (full, 'float'), (student, 'float'), (small, 'int8'): made[own].embed(net, 0, box)
    with pytest.raises(ValueError, match='of another network'): made['float'].append(made['int8'])
    train = open_dataset('synth:tiny?train_scenes=12&train_ids=10', 'train')
    for name in 'ab': quantise(folder/'s.onnx', tmp_path/f'{name}.onnx', train, 2, progress=False)
    prints = [fingerprint(Deployed(p)) for p in (folder/'s.onnx', folder/'int8.onnx', tmp_path/'a.onnx', tmp_path/'b.onnx')]
    assert len(set(prints[:3])) == 3 and prints[2] == prints[3]  # other ranges are other numbers, and the same scenes the same
    shutil.copy(folder/'int8.head.onnx', tmp_path/'a.head.onnx')
    with pytest.raises(ValueError, match='belong to different models'): Deployed(tmp_path/'a.onnx')


def test_an_older_pair_in_8_bits_is_told_from_its_network(folder, tmp_path):
    "It bears the fingerprint of the network in float, and searched that one's galleries without a word."
    import onnx
    own, full = fingerprint(Deployed(folder/'int8.onnx')), fingerprint(Deployed(folder/'s.onnx'))
    for name in ('int8.onnx', 'int8.head.onnx'):
        proto = onnx.load(str(folder/name))
        about = next(p for p in proto.metadata_props if 'fingerprint' in p.value)
        assert json.loads(about.value)['fingerprint'] == own  # as it was written
        about.value = json.dumps(json.loads(about.value) | dict(fingerprint=full))
        (tmp_path/name).write_bytes(proto.SerializeToString())
    assert fingerprint(Deployed(tmp_path/'int8.onnx')) == own != full


@pytest.mark.parametrize('end', ['.onnx', '.pt2'])
def test_wrong_files(folder, tmp_path, end):
    for p in folder.glob('s*' + end): shutil.copy(p, tmp_path)
    path, head = tmp_path/f's{end}', tmp_path/f's.head{end}'
    whole = path.read_bytes()
    with pytest.raises(ValueError, match='name the scene part'): trusted(head)
    with pytest.raises(ValueError, match='none.*no such file'): trusted(tmp_path/f'none{end}')
    for bad in (whole[:len(whole) // 2], b'', b'not a graph', head.read_bytes(), shipped_trunk('hdl-teacher').read_bytes()):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=f's{end}: not a whole file of person-search export'): trusted(path)
    path.write_bytes(whole); head.unlink()
    with pytest.raises(ValueError, match=f's.head{end}: no such file'): trusted(path)
    if end == '.onnx':
        shutil.copy(folder/'int8.head.onnx', head)
        with pytest.raises(ValueError, match='belong to different models.*export again'): trusted(path)
    with pytest.raises(ValueError, match='ends in .onnx or .pt2'): trusted(tmp_path/'s.safetensors')


def test_missing_package(student, folder, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    for f in (lambda: Deployed(folder/'s.onnx'), lambda: export_onnx(student, tmp_path/'s.onnx'), lambda: quantise(folder/'s.onnx', tmp_path/'q.onnx', [])):
        with pytest.raises(ValueError, match=r"an ONNX file needs the package onnxruntime: pip install 'person_search_nb\[deploy\]'"): f()
    trusted(folder/'s.pt2')  # needs PyTorch alone


def test_command(folder, tmp_path, command, monkeypatch):
    "What `folder` holds, by its words; networks that are written again are those of `folder`."
    def again(net, path):
        for kept, out in ((folder/'s.onnx', path), (folder/'s.head.onnx', head_path(path))): shutil.copy(kept, out)
    monkeypatch.setattr(deploy, 'export_onnx', again)
    shutil.copy(folder/'student.safetensors', tmp_path/'m.safetensors')
    done = command('export', 'm.safetensors', 'q.onnx', '--int8', 'synth:tiny?train_scenes=3&train_ids=3', '--scenes', 2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'q.onnx' in done.stdout and 'q.head.onnx' in done.stdout
    assert Deployed(tmp_path/'q.onnx').size == (192, 336)  # of the training: it goes along
    done = command('evaluate', 'q.onnx', '--data', 'synth:tiny?test_scenes=6&test_ids=4&gallery=3&queries=1', cwd=tmp_path)
    assert done.returncode == 0 and 'mAP' in done.stdout, done.stderr
    for args, message in ((('m.safetensors', 'm.onnx', '--half'), '--half and --trunk'), (('m.safetensors', 'm.pt2', '--to', 'onnx'), 'ends in .onnx'), (('m.safetensors', 'm.x', '--to', 'tflite'), '--to is one of'),
                          (('m.safetensors', 'm.pt2', '--int8', 'synth:tiny'), '--int8 is for'), (('m.safetensors', 'q.onnx', '--int8', 'nothing:x'), 'nothing')):
        done = command('export', *args, cwd=tmp_path)
        assert done.returncode and message in done.stderr and 'Traceback' not in done.stderr, done.stderr
    assert head_path('a/b.onnx').name == 'b.head.onnx'
    written = []
    monkeypatch.setattr(deploy, 'export_program', lambda net, path: written.append(path))
    for name in ('s.pt2', 's.head.pt2'): shutil.copy(folder/name, tmp_path)
    assert command('export', 'm.safetensors', 's.pt2', cwd=tmp_path).returncode == 0 and len(written) == 1   # an export may be replaced


class Payload:
    "Pickled, it makes a file when it is read."
    def __init__(self, path): self.path = str(path)
    def __reduce__(self): return open, (self.path, 'w')


def test_a_program_runs_no_code_unless_it_is_trusted(folder, tmp_path, command):
    "torch.export.load reads sample inputs by pickle when its safe reader refuses them."
    import pickle, zipfile
    mark = tmp_path/'ran'
    for name in ('s.pt2', 's.head.pt2'):
        with zipfile.ZipFile(folder/name) as whole, zipfile.ZipFile(tmp_path/name, 'w') as evil:
            for f in whole.namelist(): evil.writestr(f, pickle.dumps(Payload(mark)) if 'sample_inputs' in f else whole.read(f))
    with pytest.raises(ValueError, match=r's\.pt2: a \.pt2 file can run any code.*trust=True'): Deployed(tmp_path/'s.pt2')
    for words in (('evaluate', tmp_path/'s.pt2'), ('index', tmp_path, '--model', tmp_path/'s.pt2'), ('search', tmp_path/'s.pt2')):
        done = command(*words, cwd=tmp_path)
        assert done.returncode == 1 and '.pt2 file can run any code' in done.stderr
    assert not mark.exists()
    try: trusted(tmp_path/'s.pt2')
    except ValueError: pass
    assert mark.exists()  # what trust means; without this the test would prove nothing


def test_weights_of_an_onnx_file_are_in_it(folder, tmp_path):
    import onnx
    for name in ('s.onnx', 's.head.onnx'):
        proto = onnx.load(str(folder/name))
        tensor = proto.graph.initializer[0]
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key='location', value='../secret')
        (tmp_path/name).write_bytes(proto.SerializeToString())
    with pytest.raises(ValueError, match='not a whole file of person-search export'): Deployed(tmp_path/'s.onnx')


@pytest.mark.parametrize('field, value', [('roi_size', 10 ** 6), ('detections', float('nan')), ('stride', 0), ('proposals', -1), ('nms_threshold', 5), ('score_threshold', 'x'), ('size', [10 ** 6, 10 ** 6]), ('fingerprint', 5), ('precision', None), ('iou', 'x'), ('min_height', -1), ('detections', 1.5), ('proposals', 2.5), ('dim', 8.5), ('roi_size', 7.0), ('detections', True)])
def test_numbers_of_a_description_are_checked(folder, tmp_path, field, value):
    import onnx
    for name in ('s.onnx', 's.head.onnx'):
        proto = onnx.load(str(folder/name))
        about = next(p for p in proto.metadata_props if 'fingerprint' in p.value)
        told = json.loads(about.value)
        (told['config'] if field in ('iou', 'min_height') else told)[field] = value
        about.value = json.dumps(told)
        (tmp_path/name).write_bytes(proto.SerializeToString())
    with pytest.raises(ValueError, match=f's.onnx: {field}=.* was not written by person-search export|not a whole file'): Deployed(tmp_path/'s.onnx')


@pytest.mark.parametrize('field, value, graph', [('roi_size', 6, 7), ('stride', 8, 16)])
def test_numbers_of_a_description_are_those_of_the_graph(folder, tmp_path, field, value, graph):
    "In range, and wrong: onnxruntime's own words came with the first picture, or wrong regions in silence."
    import onnx
    for name in ('s.onnx', 's.head.onnx'):
        proto = onnx.load(str(folder/name))
        about = next(p for p in proto.metadata_props if 'fingerprint' in p.value)
        about.value = json.dumps(json.loads(about.value) | {field: value})
        (tmp_path/name).write_bytes(proto.SerializeToString())
    with pytest.raises(ValueError, match=f's.onnx: {field}={value}, but its graph .* {graph}; export again'): Deployed(tmp_path/'s.onnx')


@pytest.mark.parametrize('out', ['m.safetensors', 'link.safetensors', './m.safetensors'])
@pytest.mark.parametrize('how', ['--trunk', '--half', '--to=safetensors'])
def test_a_model_is_not_exported_onto_itself(command, tmp_path, how, out):
    "The identity classifier of the only copy was lost."
    net = lively('hdl-student-fast')
    net.size = (128, 224)
    save_model(net, tmp_path/'m.safetensors')
    (tmp_path/'link.safetensors').symlink_to(tmp_path/'m.safetensors')
    before = (tmp_path/'m.safetensors').read_bytes()
    done = command('export', 'm.safetensors', out, how, cwd=tmp_path)
    assert done.returncode and 'is the file that is read; give another name' in done.stderr
    assert (tmp_path/'m.safetensors').read_bytes() == before and (tmp_path/'link.safetensors').is_symlink()


def test_weights_of_branches_are_in_the_file_too(folder, tmp_path):
    import onnx
    from onnx import TensorProto, helper
    for name in ('s.onnx', 's.head.onnx'):
        proto = onnx.load(str(folder/name))
        secret = TensorProto(name='secret', data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
        secret.external_data.add(key='location', value='secret.bin')
        branch = helper.make_graph([], 'branch', [], [helper.make_tensor_value_info('secret', TensorProto.FLOAT, [1])], [secret])
        proto.graph.node.append(helper.make_node('If', ['condition'], ['nowhere'], then_branch=branch, else_branch=branch))
        (tmp_path/name).write_bytes(proto.SerializeToString())
    with pytest.raises(ValueError, match='not a whole file of person-search export'): Deployed(tmp_path/'s.onnx')


@pytest.mark.parametrize('out, why', [('e.head.onnx', 'is the name of the second file'), ('x.pt', 'give a name that ends in'), ('a.ONNX', 'give a name that ends in'), ('x', 'give a name that ends in')])
def test_names_of_exports(command, tmp_path, out, why):
    done = command('export', shipped_trunk('hdl-student-fast'), tmp_path/out)
    assert done.returncode == 1 and why in done.stderr and not any(tmp_path.iterdir())


def spoilt(folder, out, name, value=float('nan'), all_of_it=False):
    "The two files, one number of a weight of one of them (or all) replaced."
    import onnx
    for part in ('s.onnx', 's.head.onnx'): shutil.copy(folder/part, out/part)
    proto = onnx.load(str(folder/name))
    tensor = next(t for t in proto.graph.initializer if len(t.dims) == 4)
    weights = onnx.numpy_helper.to_array(tensor).copy()
    if all_of_it: weights[:] = value
    else: weights.flat[3] = value
    tensor.CopyFrom(onnx.numpy_helper.from_array(weights, tensor.name))
    (out/name).write_bytes(proto.SerializeToString())
    return out/'s.onnx'


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('name', ['s.onnx', 's.head.onnx'])
def test_weights_that_are_not_finite_are_refused(folder, tmp_path, name, value):
    "Scores that are no numbers are above no threshold: a street without people, and no word."
    with pytest.raises(ValueError, match=f'/{name}: .* is not finite .*the file is damaged'): Deployed(spoilt(folder, tmp_path, name, value))


@pytest.mark.parametrize('name', ['s.onnx', 's.head.onnx'])
def test_what_a_network_says_is_finite(folder, tmp_path, gallery, name):
    "Weights of 1e38 are numbers; what comes of them is not, and no picture is left out for it."
    net = Deployed(spoilt(folder, tmp_path, name, 1e38, True))
    with pytest.raises(ValueError, match='s.onnx: what it says of a picture is not finite'): net([gallery[0][0]])
    Image.fromarray(gallery.picture(0)).save(tmp_path/'a.png')
    with pytest.raises(ValueError, match='^[^ ]*s.onnx: what it says of a picture is not finite'): build_gallery(net, tmp_path/'a.png', tmp_path/'g', progress=False)


def test_a_program_with_weights_that_are_not_finite_is_refused(folder, tmp_path):
    shutil.copy(folder/'s.head.pt2', tmp_path)
    extra = {deploy.KEY: ''}
    program = torch.export.load(str(folder/'s.pt2'), extra_files=extra)
    next(iter(program.state_dict.values())).data.view(-1)[0] = float('nan')
    torch.export.save(program, tmp_path/'s.pt2', extra_files=extra)
    with pytest.raises(ValueError, match='s.pt2: .* is not finite'): trusted(tmp_path/'s.pt2')
