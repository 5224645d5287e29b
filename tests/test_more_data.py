"""Readers of sets that are not at hand: files of the same form, made from drawn scenes, are read back; other forms of the same lists; hostile input in one line."""
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from person_search_nb.benchmark_files import write_cuhk, write_movienet
from person_search_nb.crops import crop_dataset, CropIdentity
from person_search_nb.cuhk_files import read_images, read_lists
from person_search_nb.datasets import format_summary, open_dataset, open_protocol, protocols, summary
from person_search_nb.files import DataError
from person_search_nb.layouts import recognize
from person_search_nb.matfile import MatFile
from person_search_nb.models import build_model
from person_search_nb.posetrack21 import write_posetrack21
from person_search_nb.reid_folders import other_views, write_market, write_msmt17
from person_search_nb.settings import TrainConfig
from person_search_nb.specs import SPLITS
from person_search_nb.training import train as run

scipy_io = pytest.importorskip('scipy.io')
SPEC = 'synth:tiny?size=96x160&train_scenes=5&test_scenes=8&queries=5&gallery=4&train_ids=6&test_ids=5'
SCHEMES = ('g2aps', 'movienet-ps', 'posetrack21', 'market-1501', 'msmt17')


def save(file, picture): Image.fromarray(picture).save(file)


def named(data, name): return [dict(name=name(i, s), boxes=s.boxes, person_id=s.person_id) for i, s in enumerate(data.scenes)]


@pytest.fixture(scope='module')
def world(): return [open_dataset(SPEC, s, cache=True, workers=0, progress=False) for s in SPLITS]


@pytest.fixture(scope='module')
def sets(world, tmp_path_factory):
    "All sets, once; {scheme: folder}."
    train, test, asked = world
    root = tmp_path_factory.mktemp('sets')
    none = dict(occluded=np.zeros(0, int), low_resolution=np.zeros(0, int))
    queries = lambda size: dict(scene=asked.scene, box=asked.boxes, person_id=asked.person_id, candidates=asked.candidates[:, :size], subsets=none)
    def pictures(names, place):
        for (data, i), name in zip([(d, i) for d in (train, test) for i in range(len(d))], names):
            (place/name).parent.mkdir(parents=True, exist_ok=True)
            save(place/name, data.picture(i))
    drone = [named(d, lambda i, s: f'{"DS"[s.camera % 2]}{s.camera}_20_{k}{i:05d}.jpg') for k, d in enumerate((train, test))]
    pictures([t['name'] for part in drone for t in part], root/'g2aps/Image/SSM')
    write_cuhk(root/'g2aps', *drone, train.num_ids, queries, (4,), progress=False)
    film = [named(d, lambda i, s: f'tt{k}_shot_{i:04d}.jpg') for k, d in enumerate((train, test))]
    pictures([t['name'] for part in film for t in part], root/'movienet-ps/Image')
    write_movienet(root/'movienet-ps', *film, train.num_ids, queries, (2, 4), (1, 9))
    pictures(write_posetrack21(root/'posetrack21', train.scenes, test.scenes, asked), root/'posetrack21')
    write_market(root/'market-1501', *world, save)
    write_msmt17(root/'msmt17', *world, save)
    return {s: root/s for s in SCHEMES}


@pytest.fixture
def copies(sets, tmp_path):
    import shutil
    def copy(scheme): return Path(shutil.copytree(sets[scheme], tmp_path/scheme))
    return copy


@pytest.mark.parametrize('scheme', SCHEMES)
def test_is_recognised_counted_and_searched_by_every_protocol(sets, scheme):
    spec = recognize(sets[scheme])
    assert spec == f'{scheme}:{sets[scheme]}'
    found = summary(spec, progress=False)
    assert not found['faults'] and found['splits']['train']['ids'] == 6 and all(p['queries'] == 5 for p in found['protocols'].values())
    assert not any('trained on' in n for n in found['notes']), found['notes']   # other people have other numbers
    first = next(iter(found['protocols']))
    assert first in format_summary(found) and found['protocols'][first]['unanswered'] == 0
    assert set(found['protocols']) | {'protocol=cross-camera'} == set(protocols(spec)) | {'protocol=cross-camera'}


@pytest.mark.parametrize('scheme', ('g2aps', 'movienet-ps', 'posetrack21'))
def test_scenes_and_queries_come_back(sets, world, scheme):
    train, test, asked = world
    spec = f'{scheme}:{sets[scheme]}' + {'movienet-ps': '?gallery=4&app=9'}.get(scheme, '')
    learned, gallery, queries = (open_dataset(spec, s, progress=False) for s in SPLITS)
    number = lambda data, name: int(re.findall(r'(\d+)\.jpg', name)[0]) % 100
    for got, want in ((learned, train), (gallery, test)):
        for s in got.scenes:
            w = want.scenes[number(want, s.name)]
            assert np.abs(s.boxes - w.boxes).max() <= .11 and s.size == w.size
            known, there = s.person_id >= 0, w.person_id >= 0   # lists name only people who are searched for where they are searched
            assert (known == there).all() if want is train or scheme == 'posetrack21' else not (known & ~there).any()
    same = {}
    for s in gallery.scenes:   # one number for one person
        for p, w in zip(s.person_id, test.scenes[number(test, s.name)].person_id): assert same.setdefault(int(p), int(w)) == w or p < 0
    got = {(number(test, queries.dataset.names[s]), same.get(int(p))) for s, p in zip(queries.scene, queries.person_id)}
    assert got == {(int(s), int(p)) for s, p in zip(asked.scene, asked.person_id)}
    for q, s in enumerate(queries.scene):
        own = queries.gallery_index[q]
        assert own < 0 or gallery.names[own] == queries.dataset.names[s]
    if queries.candidates is not None:
        names = [{number(test, gallery.names[c]) for c in row if c >= 0} for row in queries.candidates]
        assert names == [set(row.tolist()) for row in asked.candidates]


def test_movienet_in_other_forms(copies):
    "Boxes, galleries and test scenes as cells or letters, queries without names, the folder's older name: the same set."
    folder = copies('movienet-ps')
    before = {s: open_dataset(f'movienet-ps:{folder}', s, progress=False) for s in SPLITS}
    base = folder/'annotation'
    images = scipy_io.loadmat(base/'Images.mat')['Img']
    for row in images[0]:
        boxes = np.empty((1, row['box'].shape[1]), object)
        for k, b in enumerate(row['box'][0]): boxes[0, k] = b['idlocate']
        row['box'] = boxes
    scipy_io.savemat(base/'Images.mat', dict(Img=images))
    pool = MatFile(base/'pool_2.mat').texts('pool')
    cells = np.empty((len(pool), 1), object)
    cells[:, 0] = pool
    scipy_io.savemat(base/'pool_2.mat', dict(pool=cells))
    file = base/'test/train_test/TestG2.mat'
    lists = scipy_io.loadmat(file)['TestG2']
    for row in lists[0]:
        q, g = row['Query'][0, 0], row['Gallery'][0]
        row['Query'] = np.array([[(q['imname'], q['idlocate'], 0)]], [(n, object) for n in ('imname', 'idlocate', 'ishard')])
        rows = np.empty((len(g), 3), object)
        for k, r in enumerate(g): rows[k, 0], rows[k, 1], rows[k, 2] = r['imname'], r['idlocate'], 0
        row['Gallery'] = rows
    scipy_io.savemat(file, dict(TestG2=lists))
    base.rename(folder/'anno_mvn-cs')
    after = {s: open_dataset(f'movienet-ps:{folder}', s, progress=False) for s in SPLITS}
    for s in SPLITS[:2]:
        assert after[s].names == before[s].names and all((a.boxes == b.boxes).all() for a, b in zip(after[s].scenes, before[s].scenes))
    a, b = after['query'], before['query']
    assert (a.candidates == b.candidates).all() and (a.boxes == b.boxes).all() and a.person_id.tolist() == list(range(len(b)))


def test_market_protocol_and_names(sets, copies, world):
    folder = copies('market-1501')
    some = sorted((folder/'bounding_box_test').iterdir())[-1]
    for name in ('-1_c1s1_000001_00.jpg', '0000_c3_f0000001.jpg'): (folder/'bounding_box_test'/name).write_bytes(some.read_bytes())
    (folder/'bounding_box_test'/'Thumbs.db').write_bytes(b'x')
    (folder/'query'/'0099_c2_1.png').write_bytes(some.read_bytes())   # as CUHK03-NP and DukeMTMC-reID name them
    p = open_protocol(f'market-1501:{folder}', 'protocol=standard', progress=False)
    by_name = {s.name: s for s in p.gallery.scenes}
    assert p.gallery.left_out == {'junk pictures (identity -1)': 1} and not any('-1_c1' in n for n in by_name)
    assert by_name['bounding_box_test/0000_c3_f0000001.jpg'].person_id == 0   # without a sequence 0 is a person
    assert {int(s.person_id[0]) for n, s in by_name.items() if '/0000_c' in n and 's1_' in n} == {-1}
    assert p.queries.person_id[-1] == 99 and p.queries.dataset.cameras[-1] == 2 and (p.queries.gallery_index == -1).all()
    for row, s, who in zip(p.queries.candidates, p.queries.scene, p.queries.person_id):
        out = {i for i, g in enumerate(p.gallery.scenes) if g.person_id[0] == who and g.camera == p.queries.dataset.scenes[s].camera}
        assert {*row.tolist()} - {-1} == {*range(len(p.gallery))} - out
    assert (other_views(p.queries, p.gallery) == p.queries.candidates).all()


def test_cut_outs_train_an_embedder(sets):
    "The whole of each picture is cut, nobody's surroundings are background, and a step of training runs."
    data = open_dataset(f'market-1501:{sets["market-1501"]}', progress=False)
    cuts = crop_dataset(data, (64, 32), cache=True, workers=0, progress=False)
    assert len(cuts) == len(data) and [s.person_id[0] for s in cuts.scenes] == [s.person_id[0] for s in data.scenes]
    torch.manual_seed(0)
    model = build_model('hdl-student-fast', num_ids=data.num_ids, width=.25)
    log = run(CropIdentity(model), cuts, TrainConfig(steps=2, batch_size=4, workers=0), progress=False)
    assert len(log) and np.isfinite([r['loss'] for r in log if 'loss' in r]).all()


def rewrite(file, change):
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


def spoil_list(name, text): return lambda f: (f/name).write_text(text)


def into_folders(where, n):
    "Put the first n pictures into a folder for each identity, as some tools do."
    for p in sorted(where.iterdir())[:n]:
        (where/p.name[:4]).mkdir(exist_ok=True)
        p.rename(where/p.name[:4]/p.name)


def unknown_gallery_scene(file):
    lists = scipy_io.loadmat(file)['TestG2']
    lists[0, 0]['Gallery'][0, 0]['imname'] = np.array(['nowhere.jpg'])
    scipy_io.savemat(file, dict(TestG2=lists))


@pytest.mark.parametrize('scheme,spoil,message', [
    ('movienet-ps', lambda f: [p.unlink() for p in f.glob('*/test/train_test/TestG*.mat')], r'train_test: has no TestG\*.mat; copy'),
    ('movienet-ps', lambda f: (f/'annotation/pool_2.mat').unlink(), r'pool_2.mat: no such file'),
    ('movienet-ps', lambda f: scipy_io.savemat(f/'annotation/pool_2.mat', dict(pool=['a', 'a'])), r'pool_2.mat: scene a is not in Images.mat; take it off'),
    ('movienet-ps', lambda f: scipy_io.savemat(f/'annotation/pool_2.mat', dict(pool=np.ones((3, 3)))), r'pool_2.mat: is damaged \(pool holds no texts\); copy'),
    ('movienet-ps', lambda f: scipy_io.savemat(f/'annotation/test/train_test/Train_app1.mat', dict(Train=np.array([['p', 1]], object))), r'Train_app1.mat: lists no people; copy'),
    ('movienet-ps', lambda f: (f/'annotation/test/train_test/Train_app1.mat').write_bytes(b'\x80\x04pickle' * 40), r'Train_app1.mat: is no MATLAB 5 file'),
    ('posetrack21', lambda f: (f/'posetrack_person_search/query.json').write_text('{"images": []'), r'query.json: .*JSON'),
    ('posetrack21', lambda f: rewrite(f/'posetrack_person_search/val.json', lambda d: d.update(images=[])), r'val.json: annotations\[0\] belongs to image'),
    ('posetrack21', lambda f: rewrite(f/'posetrack_person_search/val.json', lambda d: d.update(annotations=[])), r'val.json: has no frame with people; copy'),
    ('posetrack21', lambda f: rewrite(f/'posetrack_person_search/val.json', lambda d: d['images'].insert(0, 7)), r"val.json: images\[0\] has no 'file_name'; give"),
    ('posetrack21', lambda f: rewrite(f/'posetrack_person_search/val.json', lambda d: d['annotations'][0].update(person_id='x')), r"val.json: annotations\[0\] has person_id 'x'; write a whole number"),
    ('msmt17', spoil_list('list_query.txt', ''), r'list_query.txt: lists nobody; copy'),
    ('msmt17', spoil_list('list_gallery.txt', '../../../etc/0000_000_01_x.jpg 0'), r"list_gallery.txt: .*leads out of its folder"),
    ('msmt17', spoil_list('list_query.txt', '0000/0000_000_01_x.jpg 0\nanna'), r"list_query.txt: line 2 is 'anna'; write a picture and a number"),
    ('msmt17', spoil_list('list_query.txt', '0000/0000_000_01_gone.jpg 0'), r'0000_000_01_gone.jpg: no such'),
    ('msmt17', lambda f: (f/'list_gallery.txt').write_text((f/'list_gallery.txt').read_text() * 2), r'list_gallery.txt: line 27 lists .*jpg again \(before: line 1\); delete one of the two'),
    ('market-1501', lambda f: [p.unlink() for p in (f/'query').iterdir()], r'nobody is a query; copy the complete set there'),
    ('market-1501', lambda f: (f/'query').rename(f/'gone'), r'query: no such folder; copy'),
    ('market-1501', lambda f: next((f/'query').iterdir()).rename(f/'query/0000_c1s1_000001_00.jpg'), r'0000_c1s1_000001_00.jpg: is a distractor among the queries; take it away'),
    ('market-1501', lambda f: (f/'query/p1.jpg').write_bytes(b''), r'p1.jpg: is not named like .*; rename it or take it away'),
    ('market-1501', lambda f: next((f/'query').iterdir()).write_bytes(b''), r'query/.*.jpg: '),
    ('g2aps', lambda f: (f/'annotation/test/train_test/TestG4.mat').unlink(), r'train_test: has no TestG\*.mat; copy'),
    ('posetrack21', lambda f: (f/'posetrack_person_search/train.json').unlink(), r'train.json: no such file; is the layout complete\?'),
    ('posetrack21', lambda f: (f/'posetrack_person_search/query.json').unlink(), r'query.json: no such file; is the layout complete\?'),
    ('msmt17', lambda f: (f/'list_gallery.txt').write_text((f/'list_gallery.txt').read_text(), 'utf-16'), r'list_gallery.txt: is not text in UTF-8 \(.* at byte 0\); save it as UTF-8'),
    ('market-1501', lambda f: into_folders(f/'query', 99), r'query: holds folders and no pictures; move the pictures into it'),
    ('movienet-ps', lambda f: unknown_gallery_scene(f/'annotation/test/train_test/TestG2.mat'), r'not one of the test scenes of Images.mat and the pool; correct'),
])
def test_bad_input_names_the_file_and_the_way_out(copies, scheme, spoil, message):
    folder = copies(scheme)
    spoil(folder)
    with pytest.raises(DataError, match=message) as e:
        for s in SPLITS: open_dataset(f'{scheme}:{folder}', s, progress=False)
    assert '\n' not in str(e.value) and str(folder) in str(e.value)


def test_every_ending_of_a_picture_counts(copies):
    folder = copies('market-1501')
    files = sorted((folder/'query').iterdir())
    files[0].rename(files[0].with_suffix('.jpeg'))
    files[1].rename(files[1].with_suffix('.JPEG'))
    assert len(open_dataset(f'market-1501:{folder}', 'query', progress=False)) == len(files)


@pytest.mark.parametrize('ending', ('.bmp', '.webp', '.tiff', '.PNG'))
def test_pictures_of_every_kind_that_is_read_count(copies, ending):
    "They were left out in silence, and the scores were of a smaller gallery."
    folder = copies('market-1501')
    files = sorted((folder/'bounding_box_test').iterdir())
    for p in files[:4]:
        Image.open(p).save(p.with_suffix(ending))
        p.unlink()
    (folder/'bounding_box_test/._0002_c1s1_000001_00.jpg').write_bytes(b'of macOS')
    gallery = open_dataset(f'market-1501:{folder}', 'gallery', progress=False)
    assert len(gallery) == len(files) and gallery.picture(0).ndim == 3


@pytest.mark.parametrize('scheme', SCHEMES)
def test_every_file_taken_away_damaged_or_a_folder_is_one_clear_line(sets, copies, scheme):
    names = [p.relative_to(sets[scheme]) for p in sorted(sets[scheme].rglob('*')) if p.is_file() and p.suffix != '.jpg']
    folder = copies(scheme)
    for name in names:
        file = folder/name
        whole, told = file.read_bytes(), 0
        for spoil in (file.unlink, file.mkdir, lambda: (file.rmdir(), file.write_bytes(whole[:len(whole) // 2])), lambda: file.write_bytes(b'')):
            spoil()
            for s in SPLITS:
                try: open_dataset(f'{scheme}:{folder}', s, progress=False)
                except DataError as e:
                    told += 1
                    assert '\n' not in str(e) and str(folder) in str(e), e
        file.write_bytes(whole)
        assert told or 'G4' in name.name or 'app9' in name.name or name.name in ('pool_4.mat', 'list_val.txt') or 'subset' in str(name), name


# -- person-search data -----------------------------------------------------------------------------------------------

def numbers(line): return re.findall(r'\d[\d,.]*', line)


@pytest.mark.parametrize('scheme', SCHEMES)
def test_the_command_data_recognises_and_counts(command, sets, world, tmp_path, scheme):
    done = command('data', sets[scheme], '--out', tmp_path/'sheet.png')
    assert done.returncode == 0 and not done.stderr, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f'{scheme}:{sets[scheme]}') and (tmp_path/'sheet.png').is_file()
    train, gallery = (next(line for line in lines if line.startswith(s)) for s in ('train ', 'gallery '))
    learned, searched = (open_dataset(f'{scheme}:{sets[scheme]}', s, progress=False) for s in SPLITS[:2])
    for line, data in ((train, learned), (gallery, searched)):
        assert numbers(re.sub(r'\[.*?\]', '', line)) == [str(n) for n in (len(data), sum(len(s.boxes) for s in data.scenes), sum(int((s.person_id >= 0).sum()) for s in data.scenes), data.num_ids, len(set(data.cameras.tolist()) - {-1}))]
    for name in protocols(f'{scheme}:{sets[scheme]}'):
        row = next(line for line in lines if line.startswith(name))
        assert numbers(re.sub(r'\[.*?\]', '', row.removeprefix(name)))[0] == '5' and row.split()[-1] == '0'


def test_the_command_data_says_what_was_left_out(command, copies, tmp_path):
    folder = copies('posetrack21')
    rewrite(folder/'posetrack_person_search/query.json', lambda d: (d['annotations'][0].update(person_id=99999), d['annotations'][1].update(bbox=[1000, 1000, 9, 9])))
    done = command('data', f'posetrack21:{folder}', '--out', tmp_path/'a.png')
    assert done.returncode == 0 and '  1 queries are in no other frame and are left out' in done.stdout
    assert '  1 boxes of which less than a quarter is inside their picture (query)' in done.stdout
    folder = copies('market-1501')
    into_folders(folder/'bounding_box_test', 5)
    into_folders(folder/'query', 1)
    done = command('data', f'market-1501:{folder}', '--out', tmp_path/'b.png')
    assert done.returncode == 0 and 'folders in bounding_box_test, not looked into (gallery)' in done.stdout and '  1 folders in query, not looked into (query)' in done.stdout


@pytest.mark.parametrize('scheme', ('market-1501', 'msmt17'))
def test_it_is_said_that_cut_outs_have_nothing_to_detect(command, sets, scheme):
    "A detector's scores on them read like those of a bad embedder."
    spec = f'{scheme}:{sets[scheme]}'
    note = 'every picture is one person, cut out, with nothing to detect: evaluate with true boxes (--true-boxes)'
    assert f'  {note}' in command('data', spec, '--scenes', 0).stdout
    done = command('evaluate', 'shipped:hdl-student-fast', '--data', spec, '--true-boxes')
    assert done.returncode == 0 and f'note: {note}' in done.stderr and 'Detector: AP 100.0, recall 100.0.' in done.stdout, done.stderr
    done = command('evaluate', 'shipped:hdl-student-fast-rich', '--data', spec)   # it finds next to nobody: no table without rows
    assert done.returncode == 0 and f'note: {note}' in done.stderr and not re.search(r'--- \|\s*(\n\n|$)', done.stdout), done.stdout


@pytest.mark.parametrize('scheme,spoil,message', [
    ('posetrack21', lambda f: (f/'posetrack_person_search/query.json').unlink(), 'query.json: no such file; is the layout complete?'),
    ('movienet-ps', lambda f: (f/'annotation/Images.mat').write_bytes(b'\x80\x04pickle' * 40), 'Images.mat: is no MATLAB 5 file'),
    ('msmt17', lambda f: (f/'list_train.txt').write_text('anna'), "list_train.txt: line 1 is 'anna'; write"),
    ('market-1501', lambda f: next((f/'query').iterdir()).write_bytes(b''), 'cannot be decoded'),
])
def test_the_command_data_on_a_broken_set(command, copies, tmp_path, scheme, spoil, message):
    folder = copies(scheme)
    spoil(folder)
    done = command('data', f'{scheme}:{folder}', '--out', tmp_path/'a.png')
    assert done.returncode == 1 and message in done.stderr and len(done.stderr.splitlines()) == 1 and not done.stdout and not (tmp_path/'a.png').exists()


@pytest.mark.parametrize('scheme', SCHEMES)
def test_options_that_are_not_there(sets, scheme):
    for option, message in (('colour=1', 'no option .colour.; there are'), ('gallery=x', 'gallery=x|no option .gallery.'), ('protocol=x', 'protocol=x is not one of|no option .protocol.')):
        with pytest.raises(DataError, match=message): open_dataset(f'{scheme}:{sets[scheme]}?{option}', 'query', progress=False)


def test_known_sets_keep_their_faults(copies, monkeypatch):
    "A box without area is corrected in a set with exactly the published number of pictures, and an error in another."
    from person_search_nb import annotation_checks
    folder = copies('movienet-ps')
    file = folder/'annotation/Images.mat'
    images = scipy_io.loadmat(file)['Img']
    images[0, 0]['box'][0, 0]['idlocate'] = np.array([[1, 1, 0, 9]])
    scipy_io.savemat(file, dict(Img=images))
    with pytest.raises(DataError, match='box 0: .*no area'): read_images(file)
    monkeypatch.setitem(annotation_checks.PUBLISHED, 'movienet-ps', dict(images=images.size))
    assert len(read_images(file)['faults']) == 1
    assert len(read_lists(folder/'annotation/test/train_test/TestG2.mat', known=True)) == 5
