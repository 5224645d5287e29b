"A list of queries keeps what it names, in its order, in every layout; what it cannot name is said with file and line."
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from person_search_nb.files import DataError
from person_search_nb.scenes import find_queries, QuerySet, read_query_list, Scene, SceneDataset
from person_search_nb.streets import SYNTH
from person_search_nb.synthetic import write_dataset
from person_search_nb.datasets import open_dataset, open_protocol
from person_search_nb.evaluation import evaluate
from person_search_nb.models import build_model

SPEC = 'synth:tiny?train_scenes=4&test_scenes=24&train_ids=9&test_ids=16&queries=10&gallery=8&size=96x160&cameras=3'


@pytest.fixture(scope='module')
def sets(tmp_path_factory):
    "One world in the layouts of PRW and CUHK-SYSU."
    folder = tmp_path_factory.mktemp('sets')
    mini = replace(SYNTH['tiny'], size=(96, 160), train_scenes=4, test_scenes=40, train_ids=9, test_ids=20, cameras=3, queries=16, gallery=12)
    write_dataset(mini, folder / 'prw', 'prw', progress=False)
    write_dataset(mini, folder / 'cuhk', galleries=(10,), progress=False)
    return {'prw': f'prw:{folder / "prw"}', 'cuhk': f'cuhk-sysu:{folder / "cuhk"}', 'synth': SPEC}


def entries(queries, rows):
    return [dict(image=queries.dataset.names[queries.scene[r]], box=queries.boxes[r].tolist(), person_id=int(queries.person_id[r])) for r in rows]


def with_list(spec, file): return f"{spec.replace('queries=10&', '')}{'&' if '?' in spec else '?'}queries={file}"


def whole_of(spec):
    "All queries: a number and a list cannot both be queries=, so the list of a synthetic set is of its default number."
    return open_dataset(spec.replace('queries=10&', ''), 'query', progress=False)


@pytest.mark.parametrize('layout', ['prw', 'cuhk', 'synth'])
@pytest.mark.parametrize('form', ['json', 'rows', 'numbers', 'json numbers'])
def test_a_list_keeps_what_it_names(layout, form, sets, tmp_path):
    spec = sets[layout]
    if layout == 'synth': spec = spec.replace('test_scenes=24', 'test_scenes=60').replace('test_ids=16', 'test_ids=60')
    whole, file = whole_of(spec), tmp_path / 'few.txt'
    rows = [7, 2, 11, 0]
    named = entries(whole, rows)
    corners = lambda b: f'{b[0]} {b[1]} {b[2] - b[0]} {b[3] - b[1]}'
    file.write_text({'json': json.dumps(named), 'json numbers': json.dumps(rows), 'numbers': '\r\n'.join(map(str, rows)) + '\r\n\r\n',
                     'rows': '\n'.join(f"{e['person_id']} {corners(e['box'])} {Path(e['image']).stem}" for e in named)}[form])
    few = open_dataset(with_list(spec, file), 'query', progress=False)
    for name in ('scene', 'boxes', 'person_id', 'gallery_index'): np.testing.assert_array_equal(getattr(few, name), getattr(whole, name)[rows])
    assert (few.candidates is None) == (whole.candidates is None)
    if few.candidates is not None: np.testing.assert_array_equal(few.candidates, whole.candidates[rows])
    assert few.subsets.keys() == whole.subsets.keys()
    for k, v in few.subsets.items(): assert [rows[i] for i in v] == [r for r in rows if r in whole.subsets[k]]
    for i in range(len(rows)): assert torch.equal(few[i][1], whole[rows[i]][1]) and few[i][2] == whole[rows[i]][2]


def test_the_other_splits_do_not_mind(sets, tmp_path):
    (tmp_path / 'few.txt').write_text('3\n')
    for split in ('train', 'gallery'): assert open_dataset(with_list(sets['prw'], tmp_path / 'few.txt'), split, progress=False).names == open_dataset(sets['prw'], split, progress=False).names


def test_a_file_in_the_sets_folder_is_found_and_goes_with_a_protocol(sets):
    folder = Path(sets['prw'].partition(':')[2])
    lines = (folder / 'query_info.txt').read_text().splitlines()
    (folder / 'mini.txt').write_text('\n'.join(lines[3:9]))
    few, whole = (open_protocol(s, 'protocol=cross-camera', progress=False) for s in (sets['prw'] + '?queries=mini.txt', sets['prw']))
    np.testing.assert_array_equal(few.queries.candidates, whole.queries.candidates[3:9])
    assert 'queries' not in few.published and whole.published['queries'] == 2057


def test_a_number_stays_a_number_for_synth():
    assert len(open_dataset(SPEC, 'query', progress=False)) == 10
    with pytest.raises(DataError, match='only synth: takes a number'): open_dataset('coco:/nowhere?queries=30', 'query')
    with pytest.raises(DataError, match='queries=-3|queries'): open_dataset(SPEC.replace('queries=10', 'queries=-3'), 'query')


def test_scores_are_those_of_the_listed_queries(tmp_path):
    (tmp_path / 'few.json').write_text('[4, 1]')
    torch.manual_seed(0)
    net = build_model('oim', 9, width=0.125, rpn_channels=16, proposals=(20, 20))
    spec = SPEC.replace('queries=10&', '')
    gallery = open_dataset(spec, 'gallery', progress=False)
    few = open_dataset(f'{spec}&queries={tmp_path}/few.json', 'query', progress=False)
    assert evaluate(net, gallery, few, progress=False, true_boxes=True)['queries'] == 2


BAD = [
    ('9 8\n', r"line 1 is '9 8'; write identity x y width height frame"),
    ('3\n\nx\n', r"line 3 is 'x'"),
    ('1 2 3 0 5 c1s1_000001', 'line 1 is .*with an area'),
    ('1 2 nan 3 5 c1s1_000001', 'line 1 is '),
    ('1 2 3 4 5 nobody', r'line 1 is of nobody, which is none of the 40 query scenes'),
    ('99', r'line 1 is query 99; there are 16, numbered from 0'),
    ('-1', r'line 1 is query -1'),
    ('2\n5\n2', r'line 3 is query 2, as line 1 is; delete one'),
    ('', 'lists no queries'), ('[]', 'lists no queries'),
    ('[1, 2', 'is not JSON'), ('{"image": "a"}', 'is no list'),
    ('[{"image": "a.jpg"}]', r"entry 0 is .*; write \{\"image\": name"),
    ('[{"image": "a.jpg", "box": [1, 2, 3]}]', 'entry 0 is '),
    ('[{"image": 3, "box": [1, 2, 3, 4]}]', 'entry 0 is '),
    ('1.7 2 3 4 5 c1s1_000001', "line 1 is '1.7 2 3 4 5 c1s1_000001'; write identity"), ('nan 2 3 4 5 c1s1_000001', 'line 1 is '), ('inf 2 3 4 5 c1s1_000001', 'line 1 is '),
    ('[{"image": "a.jpg", "box": [1, 2, 3, 4], "person_id": true}]', 'entry 0 is '),
    ('[true]', "entry 0 is 'True'"), ('[[1, 2]]', 'entry 0 is '), ('[1e3]', "entry 0 is '1000.0'"),
]


@pytest.mark.parametrize('text,message', BAD)
def test_a_bad_list_names_file_and_line(text, message, sets, tmp_path):
    file = tmp_path / 'bad.txt'
    file.write_text(text)
    with pytest.raises(DataError, match=message) as e: open_dataset(with_list(sets['prw'], file), 'query', progress=False)
    assert str(file) in str(e.value)


def test_boxes_and_identities_of_another_version_are_said(sets, tmp_path):
    whole, file = open_dataset(sets['prw'], 'query', progress=False), tmp_path / 'list.json'
    one, = entries(whole, [5])
    def opened(**new):
        file.write_text(json.dumps([one | new]))
        return open_dataset(with_list(sets['prw'], file), 'query', progress=False)
    assert opened(box=[v + .9 for v in one['box']]).boxes.tolist() == whole.boxes[5:6].tolist()      # rounded by whoever wrote it
    with pytest.raises(DataError, match=r'list.json: entry 0 has the box .* 4.0 px from the nearest query'): opened(box=[v + 4 for v in one['box']])
    with pytest.raises(DataError, match=f"entry 0 says identity 12345, but that query is {one['person_id']}"): opened(person_id=12345)
    quiet = next(n for i, n in enumerate(whole.dataset.names) if i not in whole.scene)
    with pytest.raises(DataError, match=f'entry 0 is of {quiet}, in which nobody is a query'): opened(image=quiet)


def test_a_missing_list_is_said_before_anything_is_read(sets, tmp_path):
    for split in ('train', 'gallery', 'query'):
        with pytest.raises(DataError, match='nothing.txt: no such file, neither here nor in'): open_dataset(with_list(sets['prw'], 'nothing.txt'), split)
    (tmp_path / 'picture.jpg').write_bytes(bytes(range(128, 256)))
    with pytest.raises(DataError, match='picture.jpg: cannot be read'): open_dataset(with_list(sets['prw'], tmp_path / 'picture.jpg'), 'query', progress=False)


def test_lines_of_the_authors_form(tmp_path):
    (tmp_path / 'a.txt').write_text('484 849.7009 619.8089 172.6134 440.8639 c2s1_159941\n\n493 10 20 30 40 c4s3_026629\n')
    (where, (name, box, who)), (last, _) = read_query_list(tmp_path / 'a.txt')
    assert (where, last, name, who) == ('line 1', 'line 3', 'c2s1_159941', 484)
    assert box == pytest.approx((849.7009, 619.8089, 1022.3143, 1060.6728))


def test_a_short_name_that_two_scenes_have_is_ambiguous(tmp_path):
    scenes = [Scene(n, (60, 100), np.array([[5, 10, 25, 50]]), np.array([4])) for n in ('cam1/a.jpg', 'cam2/a.jpg', 'b.jpg')]
    queries = QuerySet(SceneDataset(scenes, None), np.arange(3), np.array([[5, 10, 25, 50.]] * 3, np.float32), np.full(3, 4), np.arange(3))
    numbers = lambda *lines: (tmp_path / 'q.txt').write_text('\n'.join(f'4 5 10 20 40 {n}' for n in lines)) and find_queries(read_query_list(tmp_path / 'q.txt'), queries, tmp_path / 'q.txt').tolist()
    assert numbers('cam2/a.jpg', 'b', 'cam1/a.jpg') == [1, 2, 0]
    with pytest.raises(DataError, match='q.txt: line 2 is of a, which may be any of cam1/a.jpg, cam2/a.jpg; write the whole name'): numbers('b', 'a')


@pytest.mark.parametrize('split', ['prw', 'cuhk', 'synth'])
def test_identities_of_a_list_are_read_as_tools_write_them(sets, tmp_path, split):
    queries, file = open_dataset(sets[split], 'query', progress=False), tmp_path / 'list.json'
    who = int(queries.person_id[0])
    entry = dict(image=queries.dataset.names[queries.scene[0]], box=queries.boxes[0].tolist())
    for value in (who, str(who), float(who), f' {who} ', None):
        file.write_text(json.dumps([entry | dict(person_id=value)]))
        assert find_queries(read_query_list(file), queries, file).tolist() == [0]
    file.write_text(json.dumps([entry | dict(person_id=str(who + 1))]))
    with pytest.raises(DataError, match=f'says identity {who + 1}, but that query is {who}'): find_queries(read_query_list(file), queries, file)
    for value in ('x', '', True, 1.5, [1], 1e400, '1.5'):
        file.write_text(json.dumps([entry | dict(person_id=value)]))
        with pytest.raises(DataError, match='entry 0 is .*"person_id": a whole number'): read_query_list(file)
