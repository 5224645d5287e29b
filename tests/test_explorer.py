"The explorers, driven from Python as a hand on the mouse would: set a value, see what changed."
from datetime import datetime, timezone
import sys
from dataclasses import replace
import numpy as np
import pytest
import torch

pytest.importorskip('ipywidgets')
pytest.importorskip('anywidget')
from person_search_nb.scenes import QuerySet, Scene, SceneDataset
from person_search_nb.inspection import record_levels
from person_search_nb.model_files import save_model, shipped_trunk
from person_search_nb.distillation_losses import attention_distillation, feature_distillation
from person_search_nb.models import build_model
from person_search_nb.search import Gallery
from person_search_nb.deployable import deployable
from person_search_nb.grad_cam import cover_losses, grad_cam
from person_search_nb.widgets import ScenePicture
from person_search_nb.explorer_base import LRUCache
from person_search_nb.heat_maps import draw_map, jpeg, resize_map, view_of, full_view, live_map
from person_search_nb.explorer import AttentionExplorer, moved
from person_search_nb.gallery import Match
from person_search_nb.showcase import demo_training
from person_search_nb.evaluation import evaluate_predictions, search_truth
from person_search_nb.predictions import Predictions
from person_search_nb.predictions_explorer import PredictionsExplorer
from person_search_nb.matching import paired_iou
from person_search_nb.ranking import match_search
from person_search_nb.retrieval_metrics import per_query
from person_search_nb.search_explorer import SearchExplorer

HEIGHTS = [float(h) for h in range(20, 64, 4)]
BOXES = [[[10, 8, 26, 56], [50, 10, 66, 58]], [[30, 6, 48, 60]], [], [[12, 10, 28, 58], [60, 4, 80, 60], [64, 8, 84, 62]]]
IDS = [[0, 1], [0], [], [1, -1, 0]]


def make_scenes(**kw):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (64, 96, 3), np.uint8) for _ in BOXES]
    scenes = [Scene(f's{i}.jpg', (64, 96), np.array(b, np.float32).reshape(-1, 4), np.array(p, np.int64)) for i, (b, p) in enumerate(zip(BOXES, IDS))]
    return SceneDataset(scenes, pictures.__getitem__, **kw)


def net(name='hdl-student-fast', seed=0, **kw):
    torch.manual_seed(seed)
    return build_model(name, 2, heights=HEIGHTS, width=0.125, **kw).eval()


@pytest.fixture(scope='module')
def models(): return net('hdl-teacher', 1), dict(distilled=net(seed=2), plain=net(seed=3))


@pytest.fixture(scope='module')
def scenes(): return make_scenes()


@pytest.fixture
def page(models, scenes): return AttentionExplorer(*models, scenes)


def pictures(page): return {k: (p.picture, p.heat) for k, p in page.pictures.items()}
def changed(page, before): return {k for k, v in pictures(page).items() if v != before[k]}


def levels_of(model, image, boxes):
    with torch.no_grad(), record_levels(model) as levels: model.embed([image], [boxes])
    return levels


@pytest.mark.parametrize('scene', [0, 1, 3])
def test_fd_and_ad_are_the_losses_of_that_level(page, models, scenes, scene):
    page.scene.value = scene
    image, truth = scenes[scene]
    t = levels_of(models[0], image, truth['boxes'])
    for name, student in models[1].items():
        s = levels_of(student, image, truth['boxes'])
        for j in range(4):
            page.level.value = j
            fd, ad = (float(f(s[k][j:j + 1], t[k][j:j + 1])) for f, k in ((feature_distillation, 'features'), (attention_distillation, 'attention')))
            assert page.apart[name]['FD'][j] == pytest.approx(fd, rel=1e-4, abs=1e-9) and page.apart[name]['AD'][j] == pytest.approx(ad, rel=1e-3, abs=1e-9)
            assert f'{fd:.2e}' in page.captions[name].value or f'{fd:.4f}' in page.captions[name].value
        assert sum(page.apart[name]['FD']) == pytest.approx(float(feature_distillation(s['features'], t['features'])), rel=1e-4)


def test_every_control_changes_the_pictures_it_should(page):
    everyone, students = {'teacher', 'distilled', 'plain'}, {'distilled', 'plain'}
    def moving(control, value):
        before = pictures(page)
        control.value = value
        assert page.error is None, page.error
        return changed(page, before)
    for quantity in ('attention', 'X', 'attention'): assert moving(page.quantity, quantity) == everyone, quantity
    assert 'teacher' in moving(page.quantity, 'A')   # where A hardly varies, its mean and its energy make the same picture
    page.quantity.value = 'attention'
    for level in (0, 1, 3, 2): assert moving(page.level, level) == everyone
    assert moving(page.opacity, 0.2) == everyone
    assert moving(page.difference, True) == students
    page.difference.value = False
    assert moving(page.same, True)
    page.same.value = False
    assert moving(page.scene, 3) == everyone
    assert moving(page.person, 1) == set()   # the outline alone moves
    page.level.value = 3
    assert moving(page.person, 0) == everyone


def test_grad_cam(page):
    pytest.importorskip('pytorch_grad_cam')
    before = pictures(page)
    page.quantity.value = 'cam'
    assert page.error is None and changed(page, before) == set(before)
    page.level.value = 3
    assert 'level 0, 1 or 2' in page.status.value and page.pictures['plain'].note and page.pictures['plain'].picture
    page.level.value = 1
    assert page.error is None and page.status.value == '' and not page.pictures['plain'].note


def test_a_click_anywhere_is_the_same_choice(page):
    page.scene.value = 3
    for source, k in ((page.scene_picture, 0), (page.pictures['teacher'], 1), (page.pictures['plain'], 2)):
        source.selected = k
        assert [page.person.value, page.scene_picture.selected, *(p.selected for p in page.pictures.values())] == [k] * 5
    page.person.value = 0
    assert page.scene_picture.selected == page.pictures['plain'].selected == 0


def said(picture, edition, choose=-1, drag=()):
    "What the browser says, and whether it was told to come again."
    answers, picture.send = [], lambda content, *a, **k: answers.append(content)
    try: picture._handle_custom_msg(dict(choose=choose, drag=list(drag), edition=edition), [])
    finally: del picture.send
    assert len(answers) == 1
    return answers[0]['late']


def test_a_choice_among_people_who_are_gone_chooses_nobody_else(page):
    "A picture may be replaced between the eye and the hand: who was number 1 there is not number 1 here."
    everywhere = (page.scene_picture, *page.pictures.values())
    before = [p.edition for p in everywhere]
    page.scene.value = 3
    assert all(p.edition == page.edition > b for p, b in zip(everywhere, before))
    chosen = page.person.value
    for p, b in zip(everywhere, before):
        assert said(p, b, choose=(chosen + 1) % 3) and page.person.value == chosen and page.error is None
    assert not said(everywhere[-1], page.edition, choose=(chosen + 1) % 3) and page.person.value == (chosen + 1) % 3
    page.level.value = 3                     # another view of the same people
    assert not said(everywhere[-1], page.edition, choose=chosen) and page.person.value == chosen


def test_difference_is_teacher_minus_student(page):
    page.quantity.value, page.level.value = 'X', 1
    d = page.shown('teacher') - page.shown('plain')
    assert (d ** 2).mean() / 2 == pytest.approx(page.apart['plain']['FD'][1], rel=1e-4)
    page.difference.value = True
    assert page.span['plain'] == pytest.approx((-np.abs(d).max(), np.abs(d).max()))


def test_one_scale(page):
    page.same.value = True
    assert len(set(page.span.values())) == 1 and 'of each picture' not in page.legend.value
    page.difference.value = True
    assert page.span['distilled'] == page.span['plain'] != page.span['teacher']


def test_networks_run_once_per_scene(models, scenes):
    runs = []
    hook = models[1]['plain'].stem.register_forward_hook(lambda *a: runs.append(1))
    try:
        page = AttentionExplorer(*models, scenes)
        page.level.value, page.opacity.value, page.quantity.value = 0, 0.1, 'X'
        page.scene.value = 1
        page.scene.value = 0
        page.difference.value = True
    finally: hook.remove()
    assert len(runs) == 2   # two scenes


def test_recent_forgets_the_oldest():
    made, recent = [], LRUCache(2)
    for key in 'abacb': recent(key, lambda: made.append(key))
    assert made == ['a', 'b', 'c', 'b']


def test_a_scene_without_people(page):
    page.scene.value = 2
    assert page.error is None and page.person.disabled and 'Nobody' in page.scene_picture.note
    page.level.value = 3
    assert 'person' in page.status.value
    page.scene.value = 0
    assert page.error is None and not page.person.disabled and page.scene_picture.note == ''


def test_a_model_without_attention(models, scenes):
    page = AttentionExplorer(models[0], net(attention='none'), scenes)
    page.quantity.value = 'attention'
    assert list(page.students) == ['student'] and 'no attention modules' in page.status.value and page.pictures['student'].note
    assert page.pictures['teacher'].picture
    page.quantity.value = 'X'
    assert page.error is None and np.isnan(page.apart['student']['AD'][2]) and '–' in page.table.value


def test_another_stride_is_said_not_lost(models, scenes):
    odd = net(seed=5)
    odd.roi_size = 14               # the level-3 maps become larger than the teacher's
    page = AttentionExplorer(models[0], dict(odd=odd), scenes)
    assert 'equal strides' in page.status.value and 'FD' not in page.captions['odd'].value
    page.scene.value = 1            # and the page still works
    assert page.pictures['odd'].picture


def test_moments(models, scenes, tmp_path):
    save_model(net(seed=7), tmp_path/'early.safetensors')
    page = AttentionExplorer(*models, scenes, dict(untrained=net(seed=6), early=tmp_path/'early.safetensors', gone=tmp_path/'gone.safetensors'))
    assert page.moment.value == 'untrained' and page.quantity.value == 'X'   # it opens on learning
    page.moment.value = 'finished'
    finished = pictures(page)
    for moment, model in (('untrained', net(seed=6)), ('early', net(seed=7))):
        page.moment.value = moment
        assert page.error is None and changed(page, finished) == {'distilled'} and moment in page.titles['distilled'].value
        image, truth = scenes[0]
        s, t = levels_of(model, image, truth['boxes']), levels_of(models[0], image, truth['boxes'])
        assert page.apart['distilled']['FD'][2] == pytest.approx(float(feature_distillation(s['features'][2:3], t['features'][2:3])), rel=1e-4)
    page.moment.value = 'gone'
    assert 'gone.safetensors' in page.status.value
    page.moment.value = 'finished'
    assert page.error is None and changed(page, finished) == set()


def test_without_moments_there_is_no_slider(page):
    assert page.moment.options == ('finished',) and page.progress.layout.display == 'none' and page.ranking.value


@pytest.fixture(scope='module')
def learning(): return AttentionExplorer.demo()


def test_the_shipped_training_goes_towards_the_teacher():
    _, moments = demo_training()
    steps = [r['step'] for r in moments.rows]
    assert len(moments) == 12 and steps == sorted(set(steps)) and steps[0] == 0
    assert list(moments)[0] == 'untrained' and list(moments)[-1] == 'finished'
    first, last = moments.rows[0], moments.rows[-1]
    assert all(last[d][j] < first[d][j] for d in ('FD', 'AD') for j in (1, 2, 3)) and last['mAP'] > first['mAP'] + .2
    assert sum(p.stat().st_size for p in (shipped_trunk('hdl-teacher').parent/'moments').iterdir()) < 9e6


def test_play_goes_through_the_moments_and_the_ranking_becomes_right(learning):
    page, right, far = learning, [], []
    assert page.moment.value == 'untrained' and page.quantity.value == 'X' and 'Press' in page.hint.value
    for k in range(page.play.max + 1):
        page.play.value = k
        assert page.error is None and page.moment.index == k and page.moment.value in page.progress.value
        right.append(sum(bool(r) for _, r in page.hits))
        far.append(page.apart['distilled']['FD'][page.level.value])
        assert len(page.found.hits) == len(page.hits) and page.found_without.hits == []
    assert right[-1] >= right[0] + 3 and far[-1] < .7 * far[0]
    assert f'{far[-1] / far[0]:.0%} of untrained' in page.captions['distilled'].value
    page.moment.value = 'untrained'
    assert page.play.value == 0


def test_a_kept_gallery_is_what_the_network_finds(learning):
    learning.moment.value = 'finished'
    kept, now = learning.gallery('distilled'), Gallery.from_model(learning.students['distilled'], learning.scenes, progress=False)
    sure = now.det_scores >= .5
    assert np.abs(kept.det_boxes - now.det_boxes[sure]).max() < .3 and np.abs(kept.det_feats - now.det_feats[sure]).max() < 2e-3
    assert learning.moments.gallery('finished', make_scenes()) is None   # other scenes


def test_what_if_changes_maps_and_list_and_shows_what_moved(learning):
    page = learning
    page.moment.value, page.edit.value = 'finished', ''
    plain, before = [(m.scene, m.similarity) for m, _ in page.hits], pictures(page)
    assert page.before is None
    for what in ('off', 'taught', 'all', 'inside', 'outside'):
        page.edit.value = what
        assert page.error is None and [(m.scene, m.similarity) for m, _ in page.before] == plain
        assert [(m.scene, m.similarity) for m, _ in page.hits] != plain and changed(page, before) <= {'distilled'}
        assert len(page.found.hits) == len(page.hits) and len(page.found_without.hits) == len(page.before)
    page.edit.value = 'all'
    assert page.apart['distilled']['FD'][:3] == pytest.approx([0, 0, 0], abs=1e-8)
    page.whose.value = 'teacher'
    assert 'same network' in page.status.value
    page.whose.value, page.where.value, page.edit.value = 'distilled', (3,), 'inside'
    assert 'levels 0 to 2' in page.status.value
    page.edit.value, page.where.value = '', (0, 1, 2)
    assert page.error is None and [(m.scene, m.similarity) for m, _ in page.hits] == plain and changed(page, before) == set()


def test_a_match_says_how_far_it_moved():
    match = lambda scene, x: Match(scene, '', np.array([x, 0, x + 10, 20.]), 1., .5, 0, None)
    before = [match(0, 0), match(1, 0), match(1, 50)]
    assert [moved(match(1, 51), 0, before), moved(match(0, 0), 1, before), moved(match(1, 1), 1, before), moved(match(2, 0), 3, before)] == ['▲2', '▼1', '=', 'new']


def test_an_answer_that_has_to_be_computed_is_announced(models, scenes):
    "The changed maps are there before all scenes are searched."
    page, said, drawn = AttentionExplorer(*models, scenes), [], []
    before = pictures(page)
    page.ranking.observe(lambda c: (said.append(c['new']), drawn.append(changed(page, before))), 'value')
    page.edit.value = 'off'
    assert 'computing' in said[0] and 'computing' not in said[-1]
    assert drawn[0] == drawn[-1] == {'distilled'}
    said.clear()
    page.edit.value = ''
    page.edit.value = 'off'
    assert not any('computing' in s for s in said)


def test_bad_arguments(models, scenes):
    with pytest.raises(ValueError, match='students is empty'): AttentionExplorer(models[0], {}, scenes)
    with pytest.raises(ValueError, match="called 'teacher'"): AttentionExplorer(models[0], dict(teacher=models[0]), scenes)
    with pytest.raises(ValueError, match='no scenes'): AttentionExplorer(*models, SceneDataset([], None))
    with pytest.raises(ValueError, match='finished'): AttentionExplorer(*models, scenes, dict(finished='x'))
    with pytest.raises(ValueError, match='no scenes'): SearchExplorer(models[0], None, SceneDataset([], None))


def test_missing_widgets_say_how_to_get_them(models, scenes, monkeypatch):
    monkeypatch.setitem(sys.modules, 'anywidget', None)
    with pytest.raises(ImportError, match='pip install'): AttentionExplorer(*models, scenes)


def test_names_are_not_markup(models, scenes):
    page = AttentionExplorer(models[0], {'<b>bold</b>': models[1]['plain']}, scenes)
    assert '<b>bold' not in page.titles['<b>bold</b>'].value + page.table.value and '&lt;b&gt;' in page.table.value


def test_still_pictures(page):
    bundle, _ = page._repr_mimebundle_()
    assert {'text/plain', 'image/jpeg'} <= set(bundle) and page.snapshot().width == 900
    assert 'application/vnd.jupyter.widget-view+json' not in bundle   # no kernel, nothing alive to show


# drawing

def test_stretch_is_bilinear():
    heat = torch.rand(5, 7, generator=torch.Generator().manual_seed(0))
    theirs = torch.nn.functional.interpolate(heat[None, None], size=(17, 25), mode='bilinear', align_corners=True)[0, 0]
    assert np.allclose(resize_map(heat.numpy(), np.linspace(0, 4, 17), np.linspace(0, 6, 25)), theirs, atol=1e-6)


def test_a_bright_cell_lands_on_its_pixels():
    scene, heat = np.full((64, 96, 3), 128, np.uint8), np.zeros((4, 6))
    heat[2, 3] = 1
    light = draw_map(scene, heat, 16, 1.).astype(int).sum(2)
    assert np.unravel_index(light.argmax(), light.shape) == (32, 48)
    assert light[:16].max() < light.max() / 4                         # and nowhere else


def test_level_3_stays_in_its_box():
    scene, heat = np.full((64, 96, 3), 128, np.uint8), np.ones((4, 4))
    plain, drawn = draw_map(scene, np.zeros((4, 6)), 16, 0.), draw_map(scene, heat, box=[40, 10, 60, 50], opacity=1.)
    inside = np.zeros((64, 96), bool)
    inside[10:50, 40:60] = True
    colourful = np.ptp(drawn.astype(int), axis=2) > 30
    assert (colourful == inside).all() and not (np.ptp(plain, axis=2) > 0).any()


def test_a_view_keeps_the_shape_and_holds_the_person():
    scene = np.zeros((200, 300, 3), np.uint8)
    for box in ([0, 0, 10, 40], [290, 150, 300, 200], [100, 20, 140, 120], [0, 0, 300, 200]):
        x1, y1, x2, y2 = view_of(scene, box)
        assert 0 <= x1 <= box[0] and box[2] <= x2 <= 300 and 0 <= y1 <= box[1] and box[3] <= y2 <= 200
        assert (x2 - x1) / (y2 - y1) == pytest.approx(1.5)
    assert draw_map(scene, view=view_of(scene, [0, 0, 10, 40])).shape[1] == 480


# search

@pytest.fixture(scope='module')
def gallery(models, scenes): return Gallery.from_model(models[0], scenes, progress=False)


@pytest.fixture
def search(models, scenes, gallery):
    page = SearchExplorer(models[0], gallery, scenes, start=0)
    page.score.value = 0.
    page.source.value = 'true'
    return page


def shown(page): return [p for p, c in zip(page.hits, page.cards) if c.layout.display != 'none']


def test_matches_are_those_of_the_gallery(search, gallery, models, scenes):
    assert search.error is None
    image, truth = scenes[0]
    for k in range(2):
        search.picture.selected = k
        with torch.no_grad(): q = models[0].embed([image], [truth['boxes'][k:k + 1]])[0].numpy()
        expected = gallery.search(q, 8, [1, 2, 3], 0.)
        assert [m.detection for m in search.matches] == [m.detection for m in expected] and len(shown(search)) == len(expected) > 0
        assert all(m.scene != 0 for m in search.matches)
        assert search.hits[0].boxes == [expected[0].box.tolist()]


def test_thresholds_and_number(search):
    everything = search.matches
    search.number.value = 2
    assert [m.detection for m in search.matches] == [m.detection for m in everything[:2]] and len(shown(search)) == 2
    search.number.value = 8
    search.alike.step = 1e-6                         # untrained networks find everyone much alike
    search.alike.value = (everything[0].similarity + everything[-1].similarity) / 2
    kept = [m.detection for m in everything if m.similarity >= search.alike.value]
    assert [m.detection for m in search.matches] == kept and 0 < len(kept) < len(everything)
    search.score.value = 1.
    assert not search.matches and not shown(search) and 'No match passes' in search.summary.value and search.error is None


def test_why(search):
    pytest.importorskip('pytorch_grad_cam')
    why = search.reasons
    assert why.body.layout.display == 'none'
    search.hits[1].selected = 0
    assert search.error is None and search.chosen == 1 and why.body.layout.display == '' and 'match 2' in why.head.value
    assert why.method.value == 'covering' and why.level.layout.display == 'none'   # the answer that is a number comes first
    box, m = search.query['box'], search.matches[1]
    theirs = search.gallery.det_feats[m.detection]
    lost = cover_losses(search.model, search.image, box, theirs, around=64, searched=False)[:, 0]
    assert ' '.join(f'{v:.2f}' for v in lost.round(2) + 0.) in why.titles[0].value
    before = [p.heat for p in why.pair]
    why.method.value = 'hires-cam'
    assert all(p.heat != b for p, b in zip(why.pair, before)) and '(HiResCAM)' in why.head.value
    why.level.value = 0
    for method in ('grad-cam', 'hires-cam'):
        why.method.value = method
        cam = grad_cam(search.model, search.image, box, theirs, 0, method=method)
        assert why.pair[0].heat == live_map(cam, 4, why.opacity.value) and search.error is None
    search.picture.selected = 1              # someone else: the old reasons go
    assert search.chosen is None and why.body.layout.display == 'none'


def test_a_dragged_box(search, scenes):
    search.picture.dragged = [50., 10., 66., 58.]
    assert search.error is None and search.picture.selected == -1 and search.query['who'] == 1
    search.picture.dragged = [70., 0., 90., 20.]
    assert search.query['who'] == -1 and search.right == [None] * len(search.matches)
    search.picture.selected = 0
    assert search.picture.dragged == [] and search.query['who'] == 0


def test_right_and_other(search, scenes):
    for m, right in zip(search.matches, search.right):
        x1, y1, x2, y2 = m.box
        best = max((max(0, min(x2, b[2]) - max(x1, b[0])) * max(0, min(y2, b[3]) - max(y1, b[1])), p) for b, p in zip(BOXES[m.scene] or [[0, 0, 0, 0]], IDS[m.scene] or [-1]))
        assert not right or best[1] == search.query['who']


def upload(page, content, name='mine.png'):
    page.upload.value = (dict(name=name, type='image/png', size=len(content), content=memoryview(content), last_modified=datetime.now(timezone.utc)),)


def test_upload(search, scenes):
    upload(search, jpeg(np.repeat(np.repeat(scenes.picture(3), 3, 0), 3, 1), 95))
    assert search.error is None and search.uploaded[1].shape == (64, 96, 3) and search.scene.disabled and search.back.layout.display == ''
    search.picture.dragged = [12., 10., 28., 58.]
    assert {m.scene for m in search.gallery.search(search.query['embedding'], 99, None, 0.)} and search.error is None
    upload(search, b'not a picture', 'notes.txt')
    assert 'notes.txt' in search.status.value and 'cannot be decoded' in search.status.value
    search.back.click()
    assert search.uploaded is None and not search.scene.disabled and search.error is None and search.status.value == ''


def test_nobody_found(models, gallery, scenes):
    page = SearchExplorer(models[0], gallery, scenes, start=0)
    page.source.value, page.scene.value = 'true', 2
    assert page.error is None and page.person.disabled and 'Drag a box' in page.picture.note and 'Nobody is chosen' in page.summary.value
    page.picture.dragged = [10., 10., 40., 60.]
    assert page.query is not None and page.error is None


def test_scenes_of_another_size(models):
    "A gallery counts in px of the original pictures, a page draws resized ones."
    half = make_scenes(size=(32, 48))
    page = SearchExplorer(models[0], None, half)
    page.source.value, page.score.value = 'true', 0.
    assert page.error is None and page.picture.size == [48., 32.]
    for m, p in zip(page.matches, page.hits): assert np.allclose(np.array(p.boxes[0]) * 2, m.box, atol=1e-4)


def asked(*given):
    page = SearchExplorer(*given, start=0)
    page.source.value, page.score.value = 'true', 0.
    assert page.error is None
    return page


def test_queries_of_their_own(models, scenes, gallery):
    other = make_scenes()
    other.read = lambda i: 255 - scenes.read(i)
    page = asked(models[0], gallery, scenes, other)
    assert any(m.scene == 0 for m in page.matches)   # other pictures of the same names: nothing is left out
    assert 'own scene' not in page.summary.value


def test_the_same_scenes_opened_again(models, scenes, gallery):
    "The query's own scene was the first match, with a similarity of 1."
    page, first = asked(models[0], gallery, scenes, make_scenes()), asked(models[0], gallery, scenes)
    assert all(m.scene != 0 for m in page.matches) and [m.detection for m in page.matches] == [m.detection for m in first.matches]
    assert page.summary.value == first.summary.value and 'in 3 scenes' in page.summary.value and page.right == first.right
    page.scene.value = 3
    assert page.error is None and page.matches and all(m.scene != 3 for m in page.matches)


def test_identities_of_another_numbering_are_not_judged(models, scenes, gallery):
    "Person 0 of the training pictures was called the same as person 0 of the gallery's."
    def other(numbering):
        data = make_scenes()
        for s in data.scenes: s.name = 'train-' + s.name
        data.numbering = numbering
        return data
    page = asked(models[0], gallery, scenes, other('coco:train.json'))
    assert set(page.right) == {None} and 'none is judged' in page.summary.value and 'person 0' in page.whom.value
    mine = make_scenes()
    mine.numbering = 'prw:/data/prw'
    known = asked(models[0], gallery, mine, other('prw:/data/prw'))
    assert None not in known.right and 'of them right' in known.summary.value
    queries = lambda data: QuerySet(data, np.zeros(1, int), np.float32([BOXES[0][0]]), np.zeros(1, int), np.full(1, -1))
    for data, judged in ((other(''), False), (make_scenes(), True)):  # a QuerySet may be of another world
        assert (None not in asked(models[0], gallery, scenes, queries(data)).right) == judged
    assert None not in asked(models[0], gallery, mine, queries(other('prw:/data/prw'))).right


def test_training_numbers_people_anew(models, scenes, gallery):
    "Person 0 of a training split is the first of its annotation, whatever number that has."
    def numbered(ids, **kw):
        made = [Scene(('' if not kw else 'train-') + s.name, s.size, s.boxes, np.array(ids, np.int64)[s.person_id]) for s in scenes.scenes]
        data = SceneDataset(made, scenes.read, **kw)
        data.numbering = 'prw:/data/prw'
        return data
    train = numbered([7, 9, -1], contiguous=True)   # 7 -> 0, 9 -> 1
    right = lambda ids: asked(models[0], gallery, numbered(ids), train).right
    assert asked(models[0], gallery, scenes, QuerySet(train, *[None] * 4)).query['who'] == 0
    same, swapped, others = (right(ids) for ids in ([7, 9, -1], [9, 7, -1], [0, 1, -1]))
    assert any(same) and not any(a and b for a, b in zip(same, swapped)) and not any(others)


def test_a_gallery_at_another_size_is_refused(models, scenes, gallery, tmp_path):
    with pytest.raises(ValueError, match='at another size'): SearchExplorer(models[0], gallery, make_scenes(size=(32, 48)))
    small = Gallery.from_model(models[0], make_scenes(size=(32, 48)), progress=False)
    with pytest.raises(ValueError, match='at another size'): SearchExplorer(models[0], small, scenes)
    small.save(tmp_path/'g.npz')
    for same in (gallery, make_scenes(size=(64, 96))), (small, make_scenes(size=(32, 48))), (Gallery.load(tmp_path/'g.npz'), make_scenes(size=(32, 48))):
        assert SearchExplorer(models[0], *same).error is None


def test_an_exported_model_is_shown_without_reasons(models, scenes):
    parts = deployable(net(seed=2))
    page = asked(parts, None, scenes)
    assert page.matches
    page.hits[0].selected = 0   # covering needs no levels
    assert page.error is None and page.reasons.body.layout.display == '' and 'covering: bright strips' in page.reasons.head.value
    page.reasons.method.value = 'grad-cam'
    assert page.error is None and 'an exported model does not show its levels' in page.reasons.head.value and page.reasons.pair[0].layout.display == 'none'
    page.reasons.level.value = 1
    assert page.error is None and page.status.value == ''


def test_a_gallery_of_other_scenes_is_refused(models, scenes, gallery):
    other = Gallery(gallery.det_image, gallery.det_boxes, gallery.det_scores, gallery.det_feats, ['x'] * 4)
    with pytest.raises(ValueError, match='same scenes'): SearchExplorer(models[0], other, scenes)


def test_a_picture_stands_alone():
    seen, p = [], ScenePicture(size=[4., 3.], boxes=[[0, 0, 1, 1]])
    p.observe(lambda c: seen.append(c['new']), 'selected')
    p.selected = 0
    assert seen == [0] and full_view(np.zeros((3, 4, 3))) == (0, 0, 4, 3)


def test_a_search_for_people_who_are_gone_is_not_made(search):
    old, found = search.picture.edition, search.picture.boxes
    search.scene.value = 3
    assert search.picture.edition == search.edition > old and search.picture.boxes != found
    query = search.query['box'].tolist()
    assert said(search.picture, old, choose=1) and said(search.picture, old, drag=(2, 2, 20, 40))
    assert search.query['box'].tolist() == query and search.picture.selected == 0 and search.picture.dragged == []
    assert not said(search.picture, search.edition, drag=(2, 2, 20, 40))
    assert search.query['box'].tolist() == [2, 2, 20, 40] and search.picture.selected == -1
    assert not said(search.picture, search.edition, choose=2)
    assert search.query['box'].tolist() == search.boxes[2].tolist() and search.picture.dragged == []


def test_picture_and_list_of_people_are_replaced_together(page, search):
    "The picture first: who sees the new people in the list sees them in the picture."
    for e, picture in ((page, page.scene_picture), (search, search.picture)):
        order = []
        e.person.observe(lambda change: order.append(list(picture.labels)), '_options_labels')
        e.scene.value = 3 if e.scene.value != 3 else 1
        assert order and all(labels == e.people for labels in order)


def test_forgotten_scenes_are_not_counted(models, scenes, gallery):
    page = asked(models[0], replace(gallery, dropped=np.array([0, 1])), scenes)
    assert 'similar in 2 scenes,' in page.summary.value  # scene 0 is the query's own, too


@pytest.mark.parametrize('given', [lambda ds: (ds,), lambda ds: ({}, ds), lambda ds: ([], ds)])
def test_what_is_no_gallery(models, scenes, given):
    with pytest.raises(ValueError, match='gallery: give a Gallery, a folder or None'): SearchExplorer(models[0], *given(scenes))


def test_students_whose_levels_cannot_be_drawn_are_said(models, scenes, tmp_path):
    "Their pictures stayed empty, or a line of Python came."
    from person_search_nb.deployable import deployable
    from person_search_nb.deployed import Deployed
    teacher, students = models
    deployed = deployable(students['plain'])  # what is written to a file, and read back as the same
    assert issubclass(Deployed, type(deployed))
    for given in ((teacher, deployed), (deployed, students), (teacher, dict(student=deployed)), (teacher, students, scenes, dict(early=deployed))):
        with pytest.raises(ValueError, match='(teacher|student|early): is an exported model, which does not show its levels'): AttentionExplorer(*given[:2], *(given[2:] or [scenes]))
    for given, kind in (([teacher], 'list'), ('s.safetensors', 'str'), (tmp_path/'s.pt2', 'Path'), (None, 'NoneType')):
        with pytest.raises(ValueError, match=f'student: is a .*{kind}, no network whose levels can be drawn'): AttentionExplorer(teacher, given, scenes)


# -- predictions ----------------------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def asked_for():
    "Queries of both people; query 2 is of a person who is nowhere else."
    data = make_scenes()
    boxes = np.array([BOXES[0][0], BOXES[0][1], BOXES[3][2]], np.float32)
    return QuerySet(data, np.array([0, 0, 3]), boxes, np.array([0, 1, 5]), np.array([0, 0, 3]))


def foreign(scenes, seed=0):
    "Predictions of no network: true boxes, one box on nobody, random embeddings."
    rng = np.random.default_rng(seed)
    image = np.concatenate([np.full(len(b), s) for s, b in enumerate(BOXES)] + [[1]]).astype(int)
    boxes = np.concatenate([np.array(b, np.float32).reshape(-1, 4) for b in BOXES] + [[[60, 10, 80, 60]]])
    return Predictions(scenes.names, image, boxes, rng.uniform(.5, 1, len(image)), rng.normal(size=(len(image), 8)), rng.normal(size=(3, 8)))


@pytest.mark.filterwarnings('ignore:.*divided by their lengths')
@pytest.mark.parametrize('matching', ['cosine', 'dot', 'euclidean'])
def test_predictions_are_shown_as_they_are_scored(scenes, asked_for, matching):
    p = foreign(scenes)
    page = PredictionsExplorer(p, scenes, asked_for, matching, start=0)
    assert page.error is None and page.which.value == 0
    expected = evaluate_predictions(p, scenes, asked_for, matching=matching)
    assert np.nanmean(page.precisions()) == pytest.approx(expected['mAP']) and np.isnan(page.precisions()[2])
    x, q = p.det_feats.astype(float), p.query_feats[0].astype(float)
    likeness = dict(dot=x @ q, cosine=x @ q / np.linalg.norm(x, axis=1) / np.linalg.norm(q), euclidean=-np.linalg.norm(x - q, axis=1))[matching]
    searched = np.flatnonzero(p.det_image != 0)  # the query's own scene is left out
    order = searched[np.argsort(-likeness[searched])]
    assert [m.detection for m in page.matches] == order[:8].tolist() and [m.similarity for m in page.matches] == pytest.approx(likeness[order[:8]], abs=1e-4)
    mine = {s: b for s, (boxes, ids) in enumerate(zip(BOXES, IDS)) for b, who in zip(boxes, ids) if who == 0 and s}
    right = []
    for m in page.matches:  # the first of a scene that overlaps the person enough, be it around a neighbour
        good = m.scene in mine and paired_iou(m.box[None].astype(float), np.array([mine[m.scene]], float))[0] >= .5
        right.append(bool(good))
        if good: del mine[m.scene]
    assert page.right == right and sum(right) == 2
    assert [c.layout.display for c in page.cards].count('') == len(page.matches)


@pytest.mark.filterwarnings('ignore:.*divided by their lengths')
def test_predictions_have_no_attention_and_say_so(scenes, asked_for):
    page = PredictionsExplorer(foreign(scenes), scenes, asked_for)
    assert 'without a network' in page.why.value and '<br' not in page.why.value
    assert not {'reasons', 'level', 'opacity', 'method'} & vars(page).keys()
    page.hits[0].selected = 0
    assert page.error is None and page.chosen == 0 and page.hits[0].labels == [f'match 1, similarity {page.matches[0].similarity:.2f}']
    page.hits[1].selected = 0
    assert (page.chosen, page.hits[0].selected) == (1, -1)


@pytest.mark.filterwarnings('ignore:.*divided by their lengths')
def test_queries_are_chosen_in_the_list_and_in_the_scene(scenes, asked_for):
    page = PredictionsExplorer(foreign(scenes), scenes, asked_for)
    aps = [page.precisions()[q] for _, q in page.which.options]
    assert aps[:2] == sorted(aps[:2]) and np.isnan(aps[2]) and page.which.value == page.which.options[0][1]
    page.which.value = 0
    before = page.picture.picture
    page.picture.selected = 1
    assert page.which.value == 1 and page.query['who'] == 1 and page.picture.picture == before
    page.which.value = 2
    assert page.picture.picture != before and 'nothing to find' in page.summary.value and page.right and set(page.right) == {None}
    assert '✗' not in ''.join(n.value for n in page.notes[:len(page.matches)])
    assert page.snapshot().size[0] == 900


@pytest.mark.filterwarnings('ignore:.*divided by their lengths')
def test_scores_and_numbers_of_predictions(scenes, asked_for):
    p = foreign(scenes)
    page = PredictionsExplorer(p, scenes, asked_for, start=0, score_threshold=0.)
    page.score.value = .75
    assert all(m.score >= .75 for m in page.matches)
    found = dict(p.compared_by().arrays())
    m = match_search(**found, query_feats=p.compared_by().query_feats, **search_truth(asked_for, scenes), score_threshold=.75)
    assert page.precisions()[0] == pytest.approx(per_query(m)[0][0]) and f'AP {page.precisions()[0]:.2f}' in page.which.label
    page.number.value = 1
    assert len(page.matches) == 1
    page.score.value = 1.
    assert page.matches == [] and 'no match passes' in page.summary.value and page.why.value == ''
    assert page.error is None


@pytest.mark.filterwarnings('ignore:.*divided by their lengths')
def test_what_cannot_be_explored(scenes, asked_for):
    p = foreign(scenes)
    with pytest.raises(ValueError, match='no embeddings of the queries'): PredictionsExplorer(replace(p, query_feats=None), scenes, asked_for)
    with pytest.raises(ValueError, match='matching is'): PredictionsExplorer(p, scenes, asked_for, 'l1')
    with pytest.raises(ValueError, match='is called'): PredictionsExplorer(replace(p, names=['x', *p.names[1:]]), scenes, asked_for)
    nobody = QuerySet(asked_for.dataset, np.zeros(0, int), np.zeros((0, 4), np.float32), np.zeros(0, int), np.zeros(0, int))
    with pytest.raises(ValueError, match='no queries'): PredictionsExplorer(p.with_queries(np.zeros((0, 8))), scenes, nobody)
