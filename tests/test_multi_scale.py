"A network that looks in several sizes, in evaluation, galleries and on the command line."
import json

import numpy as np
import pytest
import torch

from person_search_nb.datasets import open_dataset
from person_search_nb.deployable import deployable
from person_search_nb.evaluation import evaluate
from person_search_nb.gallery import fingerprint
from person_search_nb.indexing import build_gallery
from person_search_nb.manifest import MANIFEST
from person_search_nb.model_files import load_model, save_model
from person_search_nb.multi_scale import MultiScale
from person_search_nb.search import Gallery
from person_search_nb.search_commands import evaluate as evaluate_command, index

SPEC = 'synth:tiny?test_scenes=8&test_ids=6&queries=4&gallery=6'
SIZE = 128, 224


@pytest.fixture(scope='module')
def net(): return load_model('shipped:hdl-student-fast-taught').eval()


@pytest.mark.parametrize('scales', [(), (0,), (9,), ('2',), 2, (1, float('nan')), (True,)])
def test_scales_that_are_none(net, scales):
    with pytest.raises(ValueError, match='^scales='): MultiScale(net, scales)


def test_it_stands_for_the_network(net, tmp_path):
    "A file of it is the network's, and pictures of one side or one colour are no trouble."
    two = MultiScale(net, (.5, 1, 2)).eval()
    save_model(two, tmp_path/'net.safetensors')
    assert fingerprint(load_model(tmp_path/'net.safetensors')) == fingerprint(net) == fingerprint(two)
    with torch.no_grad():
        for shape in (3, 40, 300), (3, 90, 33):
            found = two([torch.zeros(shape)])[0]
            assert found['boxes'].shape[1:] == (4,) and len({len(v) for v in found.values()}) == 1
    with pytest.raises(AttributeError, match='nonsense'): two.nonsense


def test_more_is_found_and_the_same_person_is_found_once(net):
    small = open_dataset(SPEC, 'gallery', size=SIZE, progress=False)
    queries = open_dataset(SPEC, 'query', size=SIZE, progress=False)
    one, two = (evaluate(m, small, queries, progress=False) for m in (net, MultiScale(net).eval()))
    assert two['det_recall'] > one['det_recall'] and two['det_ap'] > one['det_ap']
    with torch.no_grad(): boxes = MultiScale(net).eval()([small[0][0]])[0]['boxes']
    a = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    lt, rb = torch.maximum(boxes[:, None, :2], boxes[:, :2]), torch.minimum(boxes[:, None, 2:], boxes[:, 2:])
    inter = (rb - lt).clamp(min=0).prod(2)
    iou = inter / (a[:, None] + a - inter)
    assert (iou - torch.eye(len(a))).max() <= net.nms_threshold + 1e-5


def test_an_exported_network_keeps_its_threshold():
    net = load_model('shipped:hdl-student-fast-taught').eval()
    net.nms_threshold = .1
    image = [open_dataset(SPEC, 'gallery', size=SIZE, progress=False)[0][0]]
    with torch.no_grad(): own, exported = (MultiScale(m).eval()(image)[0]['boxes'] for m in (net, deployable(net)))
    assert len(own) > 1
    torch.testing.assert_close(exported, own, atol=.05, rtol=0)


def test_a_gallery_goes_on_with_its_scales(net, tmp_path):
    g = build_gallery(MultiScale(net).eval(), SPEC, tmp_path/'g', size=SIZE, progress=False)
    plain = build_gallery(net, SPEC, tmp_path/'plain', size=SIZE, progress=False)
    assert g.manifest['scales'] == [1, 2] and g.model == plain.model and len(g) > len(plain)
    q = np.asarray(plain.det_feats[0], np.float32)
    assert Gallery.open([tmp_path/'g', tmp_path/'plain']).search(q, 1)[0].similarity > .99
    with pytest.raises(ValueError, match=r'begun with scales=\[1.0, 2.0\]'): build_gallery(net, SPEC, tmp_path/'g', size=SIZE, progress=False)
    file = tmp_path/'plain'/MANIFEST
    about = json.loads(file.read_text()); about.pop('scales'); file.write_text(json.dumps(about))  # one of an earlier day
    assert len(build_gallery(net, SPEC, tmp_path/'plain', size=SIZE, progress=False)) == len(plain)
    with pytest.raises(ValueError, match=r'begun with scales=\[1.0\]'): build_gallery(MultiScale(net).eval(), SPEC, tmp_path/'plain', size=SIZE, progress=False)
    g.save(tmp_path/'copy')
    assert Gallery.open(tmp_path/'copy').manifest['scales'] == [1, 2]
    for bad in ([], 'x', ['1'], [float('nan')]):
        file.write_text(json.dumps(about | dict(scales=bad)))
        with pytest.raises(ValueError, match=": its field 'scales'"): Gallery.open(tmp_path/'plain')


def test_by_command(tmp_path, capsys):
    model = 'shipped:hdl-student-fast-taught'
    index(SPEC, model=model, out=str(tmp_path/'g'), size='128x224', scales='1,2')
    assert Gallery.open(tmp_path/'g').manifest['scales'] == [1, 2]
    found = {s: evaluate_command(model, SPEC, size='128x224', scales=s)['detection']['ap'] for s in ('', '1', '1,2')}
    assert found[''] == found['1'] < found['1,2']
    with pytest.raises(ValueError, match='scales='): evaluate_command(model, SPEC, scales='1,two')
    with pytest.raises(ValueError, match='--scales has no effect'): evaluate_command(model, SPEC, scales='1,2', true_boxes=True)
    with pytest.raises(ValueError, match='--scales: only with a model'): evaluate_command('', SPEC, scales='1,2', predictions='p.npz')
