"A detector and an embedder of others behind the contract of our own networks."
import pytest
import torch
from torch import nn

from person_search_nb.datasets import open_dataset
from person_search_nb.detector_reid import DetectorReID, load_searcher, OnnxEmbedder
from person_search_nb.distillation import HDL
from person_search_nb.evaluation import evaluate
from person_search_nb.gallery import fingerprint
from person_search_nb.models import build_model
from person_search_nb.search import Gallery
from person_search_nb.search_explorer import SearchExplorer

SPEC = 'synth:tiny?test_scenes=10&test_ids=6&queries=6&gallery=8'
MINE = """import torch
from person_search_nb.detector_reid import DetectorReID
def detect(images):
    "Whatever stands in the left or the right half."
    return [dict(boxes=torch.tensor([[0., 60, 200, 250], [220, 60, 440, 250]]), scores=torch.tensor([.9, .8]), labels=torch.ones(2)) for _ in images]
def net(): return DetectorReID(detect, lambda cuts: cuts.unflatten(2, (4, -1)).mean((3, 4)).flatten(1), crop_size=(96, 48))
number = 3
"""


def colours(cuts): return cuts.mean((2, 3))


def detect(images):
    return [dict(boxes=torch.tensor([[-9., 10, 30, 90], [40, 10, 70, 300], [5, 5, 5.5, 50], [50, 20, 80, 90], [10, 10, 40, 60]]),
                 scores=torch.tensor([.5, .9, .8, .7, .01]), labels=torch.tensor([1, 1, 1, 2, 1])) for _ in images]


@pytest.fixture
def net():
    torch.manual_seed(0)
    return DetectorReID(detect, nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 4, 6)), crop_size=(8, 4)).eval()


def test_people_of_one_class_sure_enough_inside_and_best_first(net):
    found = net([torch.rand(3, 100, 120)])[0]
    assert found['boxes'].tolist() == [[40, 10, 70, 100], [0, 10, 30, 90]]     # a class, a weak one and a sliver left out; cut at the border
    assert found['scores'].tolist() == pytest.approx([.9, .5]) and found['embeddings'].shape == (2, 6)
    torch.testing.assert_close(found['embeddings'].norm(dim=1), torch.ones(2))


def test_given_boxes_are_described_as_found_ones(net):
    images = [torch.rand(3, 100, 120), torch.rand(3, 90, 100)]
    found = net(images)
    torch.testing.assert_close(net.embed(images, [d['boxes'] for d in found]), torch.cat([d['embeddings'] for d in found]))
    one = DetectorReID(detect, net.embedder, crop_size=(8, 4), batch=1).eval()
    torch.testing.assert_close(one(images)[1]['embeddings'], found[1]['embeddings'])
    assert net.embed(images, [torch.zeros(0, 4)] * 2).shape == (0, 6)
    with pytest.raises(ValueError, match='boxes of image 1'): net.embed(images, [torch.zeros(0, 4), torch.zeros(3)])


def test_cut_outs_are_normalised_or_not():
    seen = {}
    def look(cuts):
        seen['last'] = cuts
        return cuts.mean((2, 3))
    white = [torch.ones(3, 100, 120)]
    DetectorReID(detect, look, normalise=False).eval()(white)
    assert seen['last'].shape == (2, 3, 256, 128) and seen['last'].min() > .999
    DetectorReID(detect, look, crop_size=(8, 4)).eval()(white)
    torch.testing.assert_close(seen['last'][0, :, 0, 0], (1 - torch.tensor([.485, .456, .406])) / torch.tensor([.229, .224, .225]))


@pytest.mark.parametrize('embedder', [lambda cuts: cuts, lambda cuts: cuts.mean(), lambda cuts: [0], lambda cuts: torch.zeros(7, 3)])
def test_an_embedder_without_a_row_for_each_is_refused_at_once(embedder):
    with pytest.raises(ValueError, match=r'an embedder takes cut-outs \(N, 3, h, w\) and gives a tensor \(N, D\)'): DetectorReID(detect, embedder)


@pytest.mark.parametrize('found', [None, {}, dict(boxes=torch.zeros(0, 4), scores=torch.zeros(0))])
def test_a_detector_of_another_kind_is_refused(found):
    net = DetectorReID(lambda images: [found], colours).eval()
    with pytest.raises(ValueError, match=r'a detector gives a dict\(boxes, scores, labels\)'): net([torch.rand(3, 9, 9)])


GOOD = dict(boxes=torch.tensor([[10., 10, 30, 90], [40, 10, 70, 95]]), scores=torch.tensor([.9, .8]), labels=torch.ones(2))

@pytest.mark.parametrize('change, why', [
    (dict(scores=torch.tensor([.9])), r'scores are a tensor \(N,\) of numbers, one for each box; it gave \(1,\)'), (dict(boxes=torch.rand(2, 5)), r'boxes are a tensor \(N, 4\)'),
    (dict(boxes=[[1, 2, 3, 4]]), 'boxes are a tensor.*it gave list'), (dict(labels=['person', 'person']), 'labels are a tensor.*it gave list'),
    (dict(scores=torch.tensor([.9, float('nan')])), 'not finite'), (dict(boxes=GOOD['boxes'] * float('inf')), 'not finite'),
    (dict(scores=torch.tensor([9., -3])), 'a score is 9; scores lie between 0 and 1'), (dict(boxes=torch.tensor([[60., 10, 30, 50]] * 2)), 'ends before it begins; boxes are x1, y1, x2, y2'),
    (dict(boxes=torch.tensor([[.1, .2, .3, .4]] * 2)), 'in px, not shares')])
def test_what_a_detector_gives_is_checked(change, why):
    "Each was a shorter list of people, or an error that names neither the detector nor the mend."
    def mine(images): return [GOOD | change for _ in images]
    with pytest.raises(ValueError, match=f'mine: .*{why}') as e: DetectorReID(mine, colours).eval()([torch.rand(3, 100, 120)])
    assert '\n' not in str(e.value)


def test_pictures_left_out_bad_embeddings_and_sizes():
    with pytest.raises(ValueError, match=r'it gave 0 for 1'): DetectorReID(lambda images: [], colours).eval()([torch.rand(3, 9, 9)])
    with pytest.raises(ValueError, match='an embedding is not finite'): DetectorReID(detect, lambda cuts: cuts.mean((2, 3)) / 0 * 0)
    for settings in (dict(crop_size=16), dict(crop_size='16x8'), dict(crop_size=(0, 8)), dict(batch=0)):
        with pytest.raises(ValueError, match=next(iter(settings))): DetectorReID(detect, colours, **settings)


def test_it_is_no_model_file(net, tmp_path):
    "What could not be opened again is not written, and is not pushed."
    from person_search_nb.model_cards import push_model
    from person_search_nb.model_files import save_model
    for write in (lambda: save_model(net, tmp_path/'m.safetensors'), lambda: push_model(net, 'some/one')):
        with pytest.raises(ValueError, match='not written: a DetectorReID is not of build_model'): write()
    assert not list(tmp_path.iterdir())


def test_it_is_not_trained(net):
    with pytest.raises(ValueError, match='not trained here'): net.train()([torch.rand(3, 50, 50)])


def test_modes_of_the_parts_are_left_as_they_were():
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()).train()
    before = body[1].running_mean.clone()
    DetectorReID(detect, body)
    assert body.training and body[1].training and torch.equal(body[1].running_mean, before)


def test_another_part_or_setting_is_another_network(net):
    other = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 4, 6))
    prints = [fingerprint(n) for n in (net, DetectorReID(detect, other, crop_size=(8, 4)), DetectorReID(detect, colours, crop_size=(8, 4)),
                                       DetectorReID(detect, colours, crop_size=(9, 4)), DetectorReID(lambda x: x, colours, crop_size=(9, 4)), DetectorReID(detect, colours, crop_size=(9, 4), normalise=False),
                                       DetectorReID(detect, colours, crop_size=(9, 4), label=2))]
    assert len(set(prints)) == len(prints)


def test_an_onnx_embedder(tmp_path):
    pytest.importorskip('onnxruntime')
    from person_search_nb.deploy import quietly
    body, files = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 4, 6)).eval(), [tmp_path/'a.onnx', tmp_path/'b.onnx']
    for file in files:
        with quietly(): torch.onnx.export(body, torch.rand(1, 3, 8, 4), file, dynamo=False, input_names=['x'])   # of one cut-out each
        nn.init.normal_(body[1].weight)
    fixed = DetectorReID(detect, OnnxEmbedder(files[1]), crop_size=(8, 4), batch=1).eval()
    assert fixed([torch.rand(3, 100, 120)])[0]['embeddings'].shape == (2, 6)
    assert fingerprint(fixed) != fingerprint(DetectorReID(detect, OnnxEmbedder(files[0]), crop_size=(8, 4), batch=1))
    with pytest.raises(ValueError, match='cannot embed'): DetectorReID(detect, OnnxEmbedder(files[0]), crop_size=(8, 4)).eval()([torch.rand(3, 100, 120)])
    with pytest.raises(ValueError, match='no such file'): OnnxEmbedder(tmp_path/'none.onnx')
    files[0].write_bytes(b'nothing')
    with pytest.raises(ValueError, match='not an ONNX file'): OnnxEmbedder(files[0])


def test_torchvision_s_own_detector():
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn
    torch.manual_seed(0)
    detector = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, num_classes=3, box_score_thresh=.05)
    images = [torch.rand(3, 120, 200), torch.rand(3, 150, 100)]
    raw = detector.eval()(images)
    label = int(raw[0]['labels'].mode().values)
    found = DetectorReID(detector, colours, crop_size=(8, 4), label=label).eval()(images)
    for d, r in zip(found, raw): assert 0 < len(d['boxes']) == len(d['embeddings']) <= (r['labels'] == label).sum()


@pytest.fixture(scope='module')
def mine(tmp_path_factory):
    file = tmp_path_factory.mktemp('mine')/'my_own_searcher.py'   # imported once, as modules are
    file.write_text(MINE)
    return file


def test_a_file_of_python_names_a_network(mine):
    for other in ('shipped:net', 'x.safetensors', f'{mine}', f'{mine}:', f'{mine}:a b'):
        with pytest.raises(ValueError) as e: load_searcher(other)
        assert 'has no' not in str(e.value) and other in str(e.value) or 'net' in str(e.value)
    assert len(load_searcher(f'{mine}:net')([torch.rand(3, 256, 448)])[0]['boxes']) == 2
    with pytest.raises(ValueError, match='has no nobody'): load_searcher(f'{mine}:nobody')
    with pytest.raises(ValueError, match='gives a int; a network that searches is an nn.Module'): load_searcher(f'{mine}:number')
    with pytest.raises(ValueError, match='no such'): load_searcher(f'{mine.parent}/absent.py:net')


def test_commands(mine, command, tmp_path):
    model = f'{mine}:net'
    done = command('evaluate', model, '--data', SPEC)
    gallery, queries = (open_dataset(SPEC, s, progress=False) for s in ('gallery', 'query'))
    ours = evaluate(load_searcher(model), gallery, queries, progress=False)
    assert done.returncode == 0 and f"| all | {100 * ours['mAP']:.1f} (" in done.stdout, done.stdout + done.stderr
    assert command('index', SPEC, '--model', model, '--out', tmp_path/'g').returncode == 0
    asked = '--gallery', tmp_path/'g', '--image', gallery.names[0], '--box', '10,60,200,250'
    done = command('search', model, *asked)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 10 and gallery.names[0] in done.stdout, done.stderr
    done = command('search', *asked)     # a gallery that somebody gave away runs nobody's code
    assert done.returncode == 1 and 'may name shipped models and .safetensors files only' in done.stderr
    done = command('search', 'shipped:hdl-teacher', *asked)
    assert done.returncode == 1 and 'network' in done.stderr


def test_it_teaches_no_hdl(net):
    with pytest.raises(ValueError, match="the teacher's head does not recognise people"):
        HDL(net, build_model('hdl-student-fast', num_ids=4, width=.125))


def test_its_matches_are_explained_by_covering(mine):
    net, gallery = load_searcher(f'{mine}:net'), open_dataset(SPEC, 'gallery', progress=False)
    e = SearchExplorer(net, Gallery.from_model(net, gallery, progress=False), gallery)
    assert e.matches and not e.status.value
    e._show_reasons('1')
    assert 'covering' in e.reasons.head.value or 'lost' in ''.join(t.value for t in e.reasons.titles)
