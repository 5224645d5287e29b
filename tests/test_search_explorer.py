"The search page driven from Python: where it opens, links that cannot be trusted, parts covered, scenes drawn again, rankings of several networks, two people."
import io
import numpy as np
import pytest
import torch

pytest.importorskip('ipywidgets')
pytest.importorskip('anywidget')
from PIL import Image
from person_search_nb.evaluation import embed_queries, run_detector, search_truth
from person_search_nb.explorer import demo_models, demo_scenes
from person_search_nb.grad_cam import cover_losses, covered, part_masks
from person_search_nb.datasets import open_dataset
from person_search_nb.matching import paired_iou
from person_search_nb.rankings import query_ap
from person_search_nb.ranking import match_search
from person_search_nb.retrieval_metrics import per_query
from person_search_nb.redrawn import Change, draw_again, world_of
from person_search_nb.scenes import SceneDataset
from person_search_nb.search import Gallery
from person_search_nb.search_explorer import SearchExplorer


@pytest.fixture(scope='module')
def demo(): return SearchExplorer.demo()


@pytest.fixture
def page(demo):
    demo.reset()
    assert demo.error is None and demo.state() == demo.first
    return demo


@pytest.fixture(scope='module')
def filled(demo):
    demo.rankings.fill()
    return demo


def told(page, **content): page.told(None, content, [])


def test_it_opens_on_someone_known_with_right_and_wrong_matches(page):
    assert page.query['who'] >= 0 and page.right[0] and 0 < sum(page.right) < len(page.right)
    assert f"person {page.query['who']}" in page.whom.value


def test_the_opening_follows_the_annotation_and_no_number_in_the_code(page):
    "Other names for the people: another opening, by the same rule."
    scenes = demo_scenes()
    alone = SceneDataset(scenes.scenes, scenes.read)
    nobody = SceneDataset([type(s)(s.name, s.size, s.boxes, np.full(len(s.boxes), -1), s.camera) for s in scenes.scenes], scenes.read)
    assert SearchExplorer(page.model, page.gallery, alone).opening()[0] == page.scene.value
    unnamed = SearchExplorer(page.model, page.gallery, nobody)
    assert unnamed.error is None and unnamed.scene.value == 0 and set(unnamed.right) == {None}
    assert 'someone nobody gave a name' in unnamed.whom.value
    fewer = SearchExplorer(page.model, page.gallery, SceneDataset([type(s)(s.name, s.size, s.boxes, np.where(s.person_id == page.query['who'], -1, s.person_id), s.camera) for s in scenes.scenes], scenes.read))
    assert fewer.query['who'] not in (-1, page.query['who']) and 0 < sum(fewer.right) < len(fewer.right)


def test_a_link_brings_everything_back(page):
    page.scene.value, page.source.value, page.number.value = 5, 'true', 6
    page.picture.selected, page.whatif.part.value, page.whatif.light.value = 1, '0', .6
    page.compare.second_scene.value = 7
    page.compare.second.value = 0
    page.hits[1].selected = 0
    page.reasons.method.value = 'hires-cam'
    link, state = page.changed(), page.state()
    assert link['scene'] == '5' and link['match'] == '2' and link['method'] == 'hires-cam'
    found = [m.detection for m in page.matches]
    page.reset()
    assert page.state() == page.first and page.bar.state == {}
    assert page.restore(link) == [] and page.state() == state and [m.detection for m in page.matches] == found
    page.restore(page.first | dict(box='100,60,150,200'))
    assert page.picture.dragged == [100, 60, 150, 200] and page.picture.selected == -1 and page.error is None
    page.restore(page.first)
    assert page.picture.dragged == [] and page.picture.selected == page.person.value


@pytest.mark.parametrize('name, value', [('scene', '18'), ('scene', '-1'), ('scene', '1e3'), ('scene', ''), ('person', '900'), ('source', 'network'), ('score', 'nan'), ('score', '1.5'),
    ('alike', 'inf'), ('number', '0'), ('method', '<script>'), ('shirt', 'tartan'), ('camera', '99'), ('lists', 'yes'), ('box', '1,2,3'), ('box', '9,9,1,1'), ('box', '0,0,1e9,1e9'), ('box', 'nan,0,5,5'),
    ('match', '0'), ('match', '13'), ('match', 'x'), ('colour', 'red'), ('__class__', '1'), ('bar', '1'), ('model', '1')])
def test_a_link_is_not_trusted(page, name, value):
    before = page.state()
    told(page, ready=True, state={name: value})
    assert page.state() == before and page.error is None and f'{name}=' in page.said.value and '<script' not in page.said.value
    page.number.value = 7   # the next move takes the line away
    assert page.said.value == ''


def test_what_is_no_text_is_left_out(page):
    assert len(page.restore(dict(scene=5, person=None, score=[1]))) == 3 and page.state() == page.first


def test_save_is_a_picture_of_what_is_shown(page):
    sent = []
    page.bar.send = lambda content, buffers=None: sent.append((content, buffers))
    try: told(page, save=True)
    finally: del page.bar.send
    (content, [png]), = sent
    assert content == dict(save='search.png') and Image.open(io.BytesIO(png)).size == page.snapshot().size


def test_reset_also_forgets_a_picture_of_ones_own_and_the_brush(page):
    page.picture.strokes = [[[100., 100.], [140., 140.]]]
    assert page.whatif.key and page.whatif.answer.value
    told(page, reset=True)
    assert page.picture.strokes == [] and page.whatif.key == () and page.whatif.answer.value == '' and page.state() == page.first


def test_covering_is_the_measured_loss(page):
    page.hits[0].selected = 0
    m = page.matches[0]
    image, box = page.scenes.image(m.scene), torch.from_numpy(page.gallery_box(m))
    mine = page.query['embedding']
    lost = cover_losses(page.model, image, box, mine)[:, 0]
    with torch.no_grad():
        s = [float(page.model.embed([i], [box[None]], searched=True)[0].numpy() @ mine) for i in (image, *(covered(image, k) for k in part_masks(box, tuple(image.shape[1:]))))]
    assert np.allclose(lost, s[0] - np.array(s[1:]), atol=1e-4)
    assert s[0] == pytest.approx(m.similarity, abs=1e-3)


def test_a_third_covered_changes_the_search(page):
    before, found = page.query['embedding'], [m.similarity for m in page.matches]
    page.whatif.part.value = '1'
    image = covered(page.original, part_masks(page.box, tuple(page.original.shape[1:]), 3)[1])
    with torch.no_grad(): e = page.model.embed([image], [page.box[None]])[0].numpy()
    assert np.allclose(page.query['embedding'], e, atol=1e-5) and [m.similarity for m in page.matches] != found
    best = max(float(np.float32(page.gallery.det_feats[r]) @ before) for r in page.right_rows(page.query['who']) if int(page.gallery.det_image[r]) != page.scene.value)
    assert f'<b>{best:.2f} →' in page.whatif.answer.value
    page.whatif.part.value = ''
    assert np.array_equal(page.query['embedding'], before) and page.whatif.answer.value == ''


def test_the_brush_belongs_to_one_person(page):
    x1, y1, x2, y2 = page.box.tolist()
    page.whatif.brush.value = True
    assert page.picture.can_brush
    before = page.query['embedding']
    page.picture.strokes = [[[x1, (y1 + y2) / 2], [x2, (y1 + y2) / 2]]]
    assert not np.allclose(before, page.query['embedding']) and '→' in page.whatif.answer.value
    page.person.value = 0 if page.person.value else 1
    assert page.picture.strokes == [] and page.whatif.key == ()


@pytest.mark.parametrize('control, value, change', [('shirt', 'red', dict(shirt='red')), ('light', .5, dict(light=.5)), ('warmth', -.5, dict(warmth=-.5)), ('camera', 2, dict(camera=2))])
def test_a_scene_drawn_again_is_searched_with(page, control, value, change):
    getattr(page.whatif, control).value = value
    wanted = draw_again(world_of(page.queries), page.scene.value, Change(**change), page.row())
    assert page.error is None and np.array_equal(page.pixels, wanted) and '→' in page.whatif.answer.value
    with torch.no_grad(): e = page.model.embed([page.image], [page.box[None]])[0].numpy()
    assert np.allclose(page.query['embedding'], e, atol=1e-5)


def test_what_was_not_drawn_cannot_be_drawn_again(page):
    scenes = demo_scenes()
    photographs = SceneDataset(scenes.scenes, lambda i: scenes.read(i))
    e = SearchExplorer(page.model, page.gallery, photographs)
    assert world_of(photographs) is None and all(c.disabled for c in e.whatif.drawn)
    shown = lambda w: {id(w)}.union(*(shown(c) for c in getattr(w, 'children', ())))
    assert not shown(e.widget) & {id(c) for c in e.whatif.drawn} and id(e.whatif.part) in shown(e.widget)
    assert e.restore(dict(light='0.5')) and e.whatif.key == ()


def test_rankings_of_three_networks(filled, page):
    r = page.rankings
    page.reset()
    assert [c['name'] for c in r.columns] == ['teacher', 'taught', 'plain']
    assert [m.detection for m in r.columns[1]['matches']] == [m.detection for m in page.matches] and r.columns[1]['right'] == page.right
    for name, k in (('teacher', 0), ('plain', 2)):
        with torch.no_grad(): e = r.models[name].embed([page.image], [page.box[None]])[0].numpy()
        assert [m.detection for m in r.columns[k]['matches']] == [m.detection for m in r.galleries[name].search(e, 8, None, .5, exclude=page.own)]
    for a in (0, 1):
        for i, j in r.joined(a, a + 1):
            one, two = r.columns[a]['matches'][i], r.columns[a + 1]['matches'][j]
            assert one.scene == two.scene and paired_iou(*(np.asarray(m.box, float)[None] for m in (one, two)))[0] >= .5
    assert r.picture.value.count('<image') == 24 and r.picture.value.count('AP 0.') + r.picture.value.count('AP 1.') == 3
    r.lists.value = False
    assert r.columns == [] and not r.picture.value


def test_ap_of_a_query_is_the_protocols():
    "As `match_search` has it for the queries of the data set, whose candidates are all scenes but their own."
    model, scenes = demo_models()[1]['distilled'], demo_scenes()
    queries = open_dataset('synth:tiny?test_scenes=18&test_ids=8&queries=8&gallery=17&seed=11', 'query', progress=False)
    found, feats = run_detector(model, scenes, progress=False, min_height=0.), embed_queries(model, queries, scenes, progress=False)
    expected = per_query(match_search(**found, query_feats=feats, **search_truth(queries, scenes)))[0]
    gallery = Gallery(**found, names=list(scenes.names))
    mine = [query_ap(gallery, scenes, feats[q], int(queries.person_id[q]), [int(queries.gallery_index[q])]) for q in range(len(queries))]
    assert np.allclose(mine, expected, atol=1e-6)


def test_two_people_in_numbers(page):
    m = page.matches[0]
    page.source.value = 'true'
    page.compare.second_scene.value = m.scene
    truth = page.scenes.truth(m.scene)
    k = int(np.flatnonzero(truth['person_id'].numpy() == page.query['who'])[0])
    page.compare.picture.selected = k
    image, box = page.scenes.image(m.scene), truth['boxes'][k]
    with torch.no_grad(): s = float(page.model.embed([image], [box[None]], searched=True)[0].numpy() @ page.query['embedding'])
    assert page.error is None and f'similarity <b>{s:.2f}</b>; without' in page.compare.answer.value
    before = page.compare.answer.value
    page.whatif.part.value = '2'          # the person looked for is covered: another number
    assert page.compare.answer.value != before


def test_others_need_names_of_their_own(page):
    with pytest.raises(ValueError, match='the model itself'): SearchExplorer(page.model, page.gallery, demo_scenes(), others=dict(taught=page.model), name='taught')
    alone = SearchExplorer(page.model, page.gallery, demo_scenes())
    assert alone.rankings.widget.layout.display == 'none' and alone.error is None
