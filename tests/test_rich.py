"The rich style: the plain one unchanged, kinds of randomness that can be left out alone, true boxes."
import hashlib
from dataclasses import replace

import numpy as np
import pytest

from person_search_nb.datasets import open_dataset
from person_search_nb.files import DataError
from person_search_nb.redrawn import Change, draw_again
from person_search_nb.rich_people import look_of
from person_search_nb.streets import RANDOMISED, SYNTH, synth_config, SynthConfig
from person_search_nb.synthetic import SynthWorld, write_dataset

MINI = replace(SYNTH['tiny'], size=(96, 160), train_scenes=14, test_scenes=30, train_ids=12, test_ids=20, cameras=3, queries=25, gallery=12)
RICH = replace(MINI, style='rich')
PLACING = {'crowd', 'view', 'clutter', 'look'}  # what changes who stands where, or how broad they are


def digest(world, order): return {i: hashlib.sha256(world.jpeg(i)).hexdigest() for i in order}


def write_digest(out): out.write_text(digest(SynthWorld(RICH), [9])[9])


def test_plain_worlds_are_those_of_all_recorded_numbers():
    "Annotations of the style's first version, and mean colours, which another Pillow may round differently."
    world = SynthWorld('tiny')
    truths = [world.truth(i) for i in (0, 7, 100, 151)]
    assert [len(t['boxes']) for t in truths] == [4, 6, 3, 5]
    assert np.allclose([t['boxes'].sum() for t in truths], [2537.5, 3975.3, 2752.2, 3835.7], atol=.5)
    assert np.allclose([world.render(i).mean() for i in (0, 7)], [159.15, 116.06], atol=.1)
    assert SynthWorld(replace(MINI, style='plain')).jpeg(3) == SynthWorld(MINI).jpeg(3)


def test_same_bytes_in_any_order_and_process(tmp_path, child):
    forward, backward = digest(SynthWorld(RICH), range(5, 10)), digest(SynthWorld(RICH), [9, 8, 7, 6, 5])
    assert forward == backward and len(set(forward.values())) == 5
    other = child(write_digest, tmp_path/'9.txt')
    other.join()
    assert (tmp_path/'9.txt').read_text() == forward[9]
    assert digest(SynthWorld(replace(RICH, seed=1)), [9])[9] != forward[9]


@pytest.mark.parametrize('kind', list(RANDOMISED))
def test_each_kind_can_be_left_out(kind):
    "Something changes, and what does not place people leaves the annotations alone."
    whole, less = SynthWorld(RICH), SynthWorld(replace(RICH, without=(kind,)))
    assert any(whole.jpeg(i) != less.jpeg(i) for i in range(14))
    same = all(np.array_equal(whole.truth(i)['boxes'], less.truth(i)['boxes']) for i in range(14))
    assert same == (kind not in PLACING)


def test_truths_keep_the_contract():
    world = SynthWorld(replace(SYNTH['tiny'], style='rich'), 'test')
    h, w = world.config.size
    for i in range(8):
        t = world.truth(i)
        b = t['boxes']
        assert (b[:, :2] >= 0).all() and (b[:, 2] <= w).all() and (b[:, 3] <= h).all() and (b[:, 2:] > b[:, :2]).all()
        labelled = t['person_id'][t['person_id'] >= 0]
        assert len(set(labelled)) == len(labelled) and (t['occluded'] <= .7).all()


def test_drawn_people_lie_in_their_boxes():
    "A scene with and without its last person differs within the box, but for the shadow on the ground."
    world = SynthWorld(replace(RICH, without=('carry', 'light')))
    checked = 0
    for i in range(14):
        scene = world.scene(i)
        if not scene.people: continue
        fewer = replace(scene, people=scene.people[:-1])
        rows, columns = np.nonzero((np.asarray(world.paint(i, scene)) != np.asarray(world.paint(i, fewer))).any(2))
        if not len(rows): continue
        (x1, y1, x2, y2), foot = scene.boxes[-1], scene.people[-1][4]
        body = rows < foot - .1 * (y2 - y1)
        if not body.any(): continue
        checked += 1
        assert rows[body].min() >= y1 - 1.5 and columns[body].min() >= x1 - 1.5 and columns[body].max() <= x2 + 1.5
    assert checked >= 8


def test_people_keep_their_look():
    world, looks = SynthWorld(RICH, 'test'), {}
    for i in range(30):
        for pid, who, *_ in world.scene(i).people:
            if pid >= 0: looks.setdefault(pid, set()).add(look_of(who))
    assert len(looks) > 10 and all(len(v) == 1 for v in looks.values())
    assert len(set.union(*looks.values())) > len(looks) // 4   # look-alikes share theirs


def test_another_shirt_changes_nothing_else():
    world = SynthWorld(RICH)
    i = next(i for i in range(14) if len(world.truth(i)['boxes']))
    assert (draw_again(world, i, Change()) == world.render(i)).all()
    assert (draw_again(world, i, Change(shirt='red'), 0) != world.render(i)).any()


@pytest.mark.parametrize('options, words', [('style=oil', 'plain or rich'), ('style=rich&without=rain', "no 'rain'"), ('without=light', 'give both')])
def test_wrong_styles_are_named(options, words):
    with pytest.raises(DataError, match=f'synth:tiny: .*{words}'): open_dataset(f'synth:tiny?{options}')


def test_a_spec_names_the_style():
    config = synth_config('tiny', dict(style='rich', without='light,crowd'))
    assert config == SynthConfig(style='rich', without=('crowd', 'light')) and config.use == set(RANDOMISED) - {'light', 'crowd'}
    data = open_dataset('synth:tiny?style=rich&train_scenes=3&train_ids=4&size=96x160', 'train', progress=False)
    assert data.image(0).shape == (3, 96, 160)


def test_sets_on_disk_say_their_style_and_old_ones_go_on(tmp_path):
    few = replace(MINI, train_scenes=3, test_scenes=6, train_ids=4, test_ids=5, queries=3)
    write_dataset(few, tmp_path/'plain', 'prw', workers=1, progress=False)
    write_dataset(replace(few, style='rich'), tmp_path/'rich', 'prw', workers=1, progress=False)
    assert 'style' not in (tmp_path/'plain'/'synth.json').read_text() and '"rich"' in (tmp_path/'rich'/'synth.json').read_text()
    with pytest.raises(ValueError, match='style'): write_dataset(replace(few, style='rich'), tmp_path/'plain', 'prw', workers=1, progress=False)
