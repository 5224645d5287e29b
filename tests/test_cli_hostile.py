"Commands do what they are told, or say what they do not: no option is passed over in silence."
import json, os
from dataclasses import asdict, replace

import numpy as np, pytest, torch
from PIL import Image

from person_search_nb.gallery import thumbnail
from person_search_nb.search import Gallery
from person_search_nb.model_files import save_model
from person_search_nb.models import build_model
from person_search_nb.presets import make_recipe

MODEL = 'shipped:hdl-student-fast-taught'
SPEC = 'synth:tiny?test_scenes=6&test_ids=4&gallery=3&queries=1&size=96x160'


def refused(command, message, *words, **kw):
    ran = command(*words, **kw)
    assert ran.returncode == 1 and message in ran.stderr and 'Traceback' not in ran.stderr, ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1
    return ran


# -- search ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('words,named', [(('--cameras', '99'), '--cameras'), (('--after', '2030-01-01', '--rerank', 'cbgm'), '--after, --rerank'), (('--before', '5'), '--before'), (('--box', '1,2,3,4'), '--box')])
def test_filters_of_pictures_are_not_for_queries(command, words, named):
    refused(command, f'{named}: only for a search by a picture, --image or --queries; leave it out', 'search', MODEL, '--query', '0', '--data', SPEC, *words)

@pytest.mark.parametrize('words', [('--query', '0'), ('--size', '64x96'), ('--data', SPEC)])
def test_options_of_queries_are_not_for_pictures(command, words):
    refused(command, f'{words[0]}: only for a search by a data spec; leave it out', 'search', MODEL, '--gallery', 'g', '--image', 'a.jpg', *words)

def test_a_search_that_finds_nobody_says_so(command, tmp_path):
    save_model(build_model('hdl-student-fast', 4, width=.125, rpn_channels=16, score_threshold=.99), tmp_path / 'm.safetensors')
    ran = command('search', tmp_path / 'm.safetensors', '--data', SPEC)
    assert ran.returncode == 0 and 'nobody: no match among the people found in the' in ran.stderr


# -- evaluate -------------------------------------------------------------------------------------------------------------

def test_a_query_guided_evaluation_refuses_what_it_does_not_do(command, tmp_path):
    save_model(build_model('qeeps', 4, width=.125), tmp_path / 'q.safetensors')
    for words in (('--true-boxes',), ('--rerank', 'k-reciprocal'), ('--out', tmp_path / 'r'), ('--report', tmp_path / 'r.html')):
        refused(command, f'leave {words[0]} out', 'evaluate', tmp_path / 'q.safetensors', '--data', SPEC, '--query-guided', *words)
    assert not (tmp_path / 'r').exists()

@pytest.mark.parametrize('text', ['{"lr": 0.1}', '[1, 2]', 'no json', json.dumps(dict(data='coco:/gone'))])
def test_a_strange_recipe_beside_a_model_stops_no_evaluation(command, tmp_path, text):
    save_model(build_model('hdl-student-fast', 4, width=.125, rpn_channels=16), tmp_path / 'model.safetensors')
    (tmp_path / 'recipe.json').write_text(text)
    ran = command('evaluate', tmp_path / 'model.safetensors', '--data', SPEC)
    assert ran.returncode == 0 and 'warning: what' in ran.stderr and 'recipe.json' in ran.stderr and 'mAP' in ran.stdout

def test_a_report_is_refused_before_the_work(command, tmp_path):
    (tmp_path / 'tables.md').write_text('mine')
    refused(command, 'tables.md: is no part of an earlier report', 'evaluate', tmp_path / 'none.safetensors', '--out', tmp_path)


# -- options of no effect -------------------------------------------------------------------------------------------------

@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)  # some random networks say nothing of a picture: embeddings without a length
    save_model(build_model('hdl-student-fast', 4, width=.125, rpn_channels=16), tmp_path / 'm.safetensors')
    return tmp_path / 'm.safetensors'

def test_costs_of_what_is_named(command, model, tmp_path):
    cost = lambda models, *more: ('cost', '--size', '64x96', '--models', models, *more)
    refused(command, 'a model file has a width of its own; leave --width out', *cost(model, '--width', '.5'))
    refused(command, 'oim is there twice; name each model once', *cost('oim, hdl-student,oim'))
    refused(command, 'a name is empty', *cost('oim,,hdl-student'))
    ran = command(*cost(f'hdl-student-fast , {model}'))
    assert ran.returncode == 0 and 'hdl-student-fast' in ran.stdout and 'm.safetensors' in ran.stdout

@pytest.mark.parametrize('words', [('cost', '--models'), ('distill',), ('export', '{}', 'out.safetensors')])
@pytest.mark.parametrize('ending', ['.onnx', '.pt2'])
def test_exported_files_have_no_layers(command, tmp_path, words, ending):
    file = tmp_path / f'x{ending}'
    file.write_bytes(b'\xff' * 99)
    words = [w.format(file) for w in words] if '{}' in words else [*words, file]
    refused(command, f'x{ending}: was written by export, and only searches; give the .safetensors', *words, cwd=tmp_path)

def test_a_setting_is_given_once(command):
    refused(command, '--set gives lr twice, 0.1 and 0.2; give it once', 'presets', 'oim', '--set', 'lr=0.1', 'lr=0.2')

def test_trunks_that_no_row_starts_from(command, tmp_path):
    ablate = lambda table, *more: ('ablate', table, '--trunks', tmp_path, '--out', tmp_path / 'out', *more)
    refused(command, 'would have no effect, because no row of this table names a trunk', *ablate('table6'))
    refused(command, 'would have no effect, because start= is given', *ablate('attention-table2', '--set', 'start='))
    refused(command, 'googlenet.safetensors: no such file', *ablate('attention-table2'))
    refused(command, 'give each seed once', 'ablate', 'table6', '--out', tmp_path / 'out', '--seeds', '0', '0')
    assert not (tmp_path / 'out').exists()

@pytest.mark.parametrize('words', [('make-data', 'synth:tiny'), ('train', '--out'), ('index', 'x', '--out'), ('demo', '--out'), ('evaluate', 'x', '--out')])
def test_a_device_is_no_folder(command, words):
    refused(command, '/dev/null: is neither a file nor a folder; give another name', *words, '/dev/null')


# -- pictures that are written ------------------------------------------------------------------------------------------

def picture(path, value=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((60, 100, 3), value, np.uint8)).save(path)
    return path

@pytest.fixture
def mine(tmp_path):
    "An annotation in COCO form with four pictures, as a data spec."
    names = [f'c{c}_{k}.png' for c in (1, 2) for k in (1, 2)]
    for i, name in enumerate(names): picture(tmp_path / 'coco' / name, 40 * i)
    people = [dict(id=i + 1, image_id=i + 1, bbox=[10, 5, 20, 40], person_id=i % 2, category_id=1) for i in range(4)]
    images = [dict(id=i + 1, file_name=name, width=100, height=60) for i, name in enumerate(names)]
    (tmp_path / 'coco/mine.json').write_text(json.dumps(dict(images=images, annotations=people, categories=[dict(id=1, name='person')])))
    return f"coco:{tmp_path / 'coco/mine.json'}"

def test_no_picture_is_drawn_over_other_files(command, mine, tmp_path):
    files = {p: p.read_bytes() for p in (tmp_path / 'coco').iterdir()}
    for words in (('data', mine, '--scenes', 2), ('data', mine.partition(':')[2], '--scenes', 2), ('search', MODEL, '--query', 0, '--data', mine)):
        refused(command, 'mine.json: a picture is drawn; give a name that ends in .png', *words, '--out', tmp_path / 'coco/mine.json')
        refused(command, 'c1_1.png: is there already, was not drawn by this command', *words, '--out', tmp_path / 'coco/c1_1.png')
    assert {p: p.read_bytes() for p in (tmp_path / 'coco').iterdir()} == files
    for _ in range(2): assert command('data', mine, '--scenes', 2, '--out', tmp_path / 'sheet.png').returncode == 0  # its own is replaced

def test_no_picture_is_drawn_over_what_matplotlib_drew(command, mine, tmp_path):
    "Scenes written by plt.imsave and one's own charts say Matplotlib, too, and were lost."
    import matplotlib.pyplot as plt
    scene, chart = tmp_path / 'coco/c1_1.png', tmp_path / 'chart.png'
    plt.imsave(scene, np.full((60, 100, 3), 50, np.uint8))
    fig = plt.figure()
    fig.savefig(chart)
    plt.close(fig)
    for words in (('data', mine, '--scenes', 2), ('search', MODEL, '--query', 0, '--data', mine)):
        for out in (scene, chart):
            before = out.read_bytes()
            refused(command, f'{out.name}: is there already, was not drawn by this command', *words, '--out', out)
            assert out.read_bytes() == before

def test_no_picture_is_drawn_over_one_of_its_own_data(command, mine, tmp_path):
    "A sheet may be a scene of another data set."
    assert command('data', mine, '--scenes', 2, '--out', tmp_path / 'sheet.png').returncode == 0
    for name in ('c1_1', 'c1_2'): (tmp_path / f'coco/{name}.png').write_bytes((tmp_path / 'sheet.png').read_bytes())
    size = Image.open(tmp_path / 'sheet.png').size
    file = tmp_path / 'coco/mine.json'
    found = json.loads(file.read_text())
    for image in found['images'][:2]: image.update(width=size[0], height=size[1])
    file.write_text(json.dumps(found))
    for words in (('data', mine, '--scenes', 4), ('search', MODEL, '--query', 0, '--data', mine)):
        ran = command(*words, '--out', tmp_path / 'coco/c1_1.png')
        assert ran.returncode == 1 and 'c1_1.png: is the file that is read; give another name' in ran.stderr
    assert (tmp_path / 'coco/c1_1.png').read_bytes() == (tmp_path / 'sheet.png').read_bytes()



# -- what was embedded ---------------------------------------------------------------------------------------------------

def test_a_kept_gallery_is_of_the_same_pictures(command, model, tmp_path):
    "Two data sets with the same names: the second was searched in the embeddings of the first."
    for name, seed in (('a', 0), ('b', 1)):
        done = command('make-data', f'{SPEC}&train_scenes=2&cameras=2&seed={seed}', tmp_path / name, '--layout', 'prw', '--workers', 1)
        assert done.returncode == 0, done.stderr
    look = lambda name, file='g.npz': ('search', model, '--data', f'prw:{tmp_path / name}', '--gallery', tmp_path / file)
    for _ in range(2): assert command(*look('a')).returncode == 0
    kept = (tmp_path / 'g.npz').read_bytes()
    ran = command(*look('b'))
    assert ran.returncode == 1 and 'g.npz: holds' in ran.stderr and 'delete it' in ran.stderr
    g = Gallery.load(tmp_path / 'g.npz')
    g.data = ''
    g.save(tmp_path / 'old.npz')
    assert 'old.npz: does not say of which pictures; delete it' in command(*look('a', 'old.npz')).stderr
    with pytest.raises(ValueError, match='model and data are texts'): replace(g, data=5).save(tmp_path / 'x.npz')
    for p in (tmp_path / 'a/frames').iterdir(): picture(p)  # other pictures in their places
    ran = command(*look('a'))
    assert ran.returncode == 1 and (tmp_path / 'g.npz').read_bytes() == kept


# -- what a model was trained on -----------------------------------------------------------------------------------------

def test_training_and_search_are_compared_by_files_not_names(command, mine, model, tmp_path):
    "A link or a relative path hid that both were the same."
    (tmp_path / 'link').symlink_to(tmp_path / 'coco')
    model.rename(tmp_path / 'run.safetensors')
    model = tmp_path / 'run.safetensors'
    spec = f'{mine}?train=c1*&gallery=*'
    recipe = asdict(make_recipe('hdl-student-fast', spec, 'tiny'))
    (tmp_path / 'recipe.json').write_text(json.dumps(recipe))
    for other in (spec, 'coco:coco/mine.json', f'coco:{tmp_path}/link/mine.json'):
        ran = command('evaluate', model, '--data', other, cwd=tmp_path)
        assert ran.returncode == 0 and 'warning: 2 of 2 people searched were trained on, and 2 of 4 pictures' in ran.stderr, (other, ran.stderr)


# -- what is to know of the data -----------------------------------------------------------------------------------------

def test_every_command_says_what_its_data_leave_out(command, mine, model, tmp_path):
    "Boxes that were cut or there twice were told by `data` only."
    file = tmp_path / 'coco/mine.json'
    found = json.loads(file.read_text())
    more = dict(id=9, image_id=1, bbox=[10, 5, 20, 40]), dict(id=10, image_id=3, bbox=[80, 5, 30, 40]), dict(id=11, image_id=3, bbox=[99, 5, 30, 40])
    found['annotations'] += [box | dict(person_id=-1, category_id=1) for box in more]
    file.write_text(json.dumps(found))
    spec, small = mine + '?train=*&outside=clip', ('epochs=1', 'batch_size=2', 'warmup=1', 'device=cpu', 'precision=fp32', 'start=', 'size=96x160')
    for words in (('evaluate', model), ('search', model), ('train', '--model', 'hdl-student-fast', '--preset', 'tiny', '--out', tmp_path / 'run', '--set', *small),
                  ('ablate', 'table7', '--student', 'hdl-student-fast', '--out', tmp_path / 'table', '--set', *small, 'width=0.125', 'rpn_channels=16', 'imprint=False')):
        ran = command(*words, '--data', spec)
        notes = [line for line in ran.stderr.splitlines() if line.startswith('note: ')]
        assert ran.returncode == 0 and len(notes) == len(set(notes)), ran.stderr
        assert 'twice' in str(notes) and 'cut' in str(notes) and 'note: left out: 1 ' in str(notes), ran.stderr

def test_a_teacher_is_given_once(command, model, tmp_path):
    "The one in --set was taken, and the argument forgotten."
    refused(command, f'teacher is the first argument of distill, {model}; leave it out of --set', 'distill', model, '--out', tmp_path / 'o', '--set', 'teacher=other.safetensors')
    for k in ('teacher', 'detector'): refused(command, 'x.onnx: was written by export', 'train', '--out', tmp_path / 'o', '--set', f'{k}=x.onnx')
    assert not (tmp_path / 'o').exists()

def test_scenes_are_for_calibration(command, model, tmp_path):
    for out in ('x.onnx', 'x.pt2', 'x.safetensors'): refused(command, '--scenes is for --int8', 'export', model, tmp_path / out, '--scenes', '5')


# -- what an export would replace -----------------------------------------------------------------------------------------

@pytest.mark.parametrize('ending', ['.safetensors', '.onnx', '.pt2'])
def test_an_export_replaces_exports_only(command, model, tmp_path, ending):
    "A model of a long training, or a text, was replaced without a word."
    other, out = tmp_path / f'other{ending}', tmp_path / f'out{ending}'
    other.write_bytes(model.read_bytes())
    refused(command, f'other{ending}: is there already, was not written by export', 'export', model, other)
    assert other.read_bytes() == model.read_bytes()
    if ending == '.safetensors':  # of the others, tests/test_deploy.py has some that are written
        for _ in range(2): assert command('export', model, out).returncode == 0  # its own is replaced
        return
    head = tmp_path / f'other.head{ending}'
    other.unlink()
    head.write_text('mine')
    refused(command, f'other.head{ending}: is there already', 'export', model, other)
    assert head.read_text() == 'mine' and not other.exists()

def test_a_gallery_replaces_galleries_only(tmp_path):
    g = Gallery(np.zeros(1, int), np.array([[0, 0, 5, 9.]]), np.ones(1), np.eye(1, 4, dtype=np.float32), ['a'])
    np.savez(tmp_path / 'numbers.npz', x=np.arange(5))
    (tmp_path / 'text.npz').write_text('mine')
    for name in ('numbers.npz', 'text.npz'):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(ValueError, match=f'{name}: is there already, is no gallery, and would be lost'): g.save(tmp_path / name)
        assert (tmp_path / name).read_bytes() == before
    (tmp_path / 'empty.npz').touch()
    for _ in range(2): g.save(tmp_path / 'empty.npz')
    assert len(Gallery.load(tmp_path / 'empty.npz')) == 1


# -- names that are no text -----------------------------------------------------------------------------------------------

def test_a_page_of_a_picture_whose_name_is_no_utf_8(command, tmp_path):
    "A name of Latin-1 bytes, as old archives hold them, ended without a page."
    made = command('make-data', f'{SPEC}&train_scenes=1', tmp_path / 'd', '--layout', 'prw', '--workers', 1)
    assert made.returncode == 0, made.stderr
    asked = tmp_path / 'caf\udce9.jpg'
    asked.write_bytes(next((tmp_path / 'd/frames').glob('*.jpg')).read_bytes())
    assert command('index', tmp_path / 'd/frames', '--model', MODEL, '--out', tmp_path / 'g').returncode == 0
    ran = command('search', MODEL, '--gallery', tmp_path / 'g', '--image', asked, '--box', '10,10,40,90', '--out', tmp_path / 'w\udce9.html')
    assert ran.returncode == 0, ran.stderr
    ran.stdout.encode()
    assert '<h1>caf\\udce9.jpg in g</h1>' in (tmp_path / 'w\udce9.html').read_text('utf-8')


# -- what is looked for ---------------------------------------------------------------------------------------------------

def test_a_query_is_an_embedding():
    "A query of zeros had everyone as its match; one of length 5, similarities beyond 1."
    g = Gallery(np.arange(2), np.array([[0, 0, 5, 9.]] * 2), np.ones(2), np.eye(2, 4, dtype=np.float32), ['a', 'b'])
    with pytest.raises(ValueError, match='the query has length 0; divide .* features are all zero'): g.search(np.zeros(4))
    with pytest.raises(ValueError, match='the query has length 5; divide each embedding by its length$'): g.search(5 * g.det_feats[0])
    assert g.search(g.det_feats[0].astype(np.float16) * 1.0005, 1)[0].detection == 0
    assert replace(g, matching='euclidean').search(5 * g.det_feats[0], 1)[0].detection == 0


# -- shipped models -------------------------------------------------------------------------------------------------------

def test_every_command_that_reads_a_model_takes_a_shipped_one(command, tmp_path):
    "index, search and evaluate took the name; export looked for a file of that name."
    out = tmp_path / 'x.safetensors'
    assert command('export', MODEL, out, '--half').returncode == 0 and out.stat().st_size > 1e5
    refused(command, "no small trunk of 'vgg' comes with the package; there are ", 'export', 'shipped:vgg', out)
    ran = command('cost', '--size', '64x96', '--models', MODEL)
    assert ran.returncode == 0 and 'hdl-student-fast-taught' in ran.stdout, ran.stderr
    refused(command, 'a model file has a width of its own', 'cost', '--models', MODEL, '--width', '.5')


# -- what killed calls left ------------------------------------------------------------------------------------------------

def test_the_next_call_clears_what_a_killed_one_left(command, model, tmp_path):
    "Half-written files of a killed call stayed for ever, and those of a call that still writes must."
    for name in ('r', 'd/frames', 'd/annotations'): (tmp_path / name).mkdir(parents=True)
    outs = [tmp_path / name for name in ('r/report.json', 'r/errors.png', 'x.safetensors', 'w.png')]
    old, new = ([p.with_name(f'{p.name}.{pid}.part') for p in outs] for pid in (4711, 4712))
    for p in old + new: p.write_text('half')
    for p in old: os.utime(p, (1e9, 1e9))
    foreign = tmp_path / 'w.png.mine.part', tmp_path / 'd/frames/x.jpg.mine.part'
    for p in foreign: p.write_text('mine')
    for words in (('evaluate', model, '--data', SPEC, '--out', tmp_path / 'r'), ('export', model, tmp_path / 'x.safetensors'),
                  ('search', model, '--data', SPEC, '--out', tmp_path / 'w.png')):
        ran = command(*words)
        assert ran.returncode == 0, ran.stderr
    assert not any(p.exists() for p in old) and all(p.exists() for p in new)
    make = 'make-data', f'{SPEC}&train_scenes=1', tmp_path / 'd', '--layout', 'prw', '--workers', 1
    (tmp_path / 'd/frames/x.jpg.mine.part').unlink()
    for p in ('d/frames', 'd/annotations'): (tmp_path / p).rmdir()
    assert command(*make).returncode == 0
    frame = next((tmp_path / 'd/frames').glob('*.jpg'))
    left = frame.with_name(f'{frame.name}.4711.part'), tmp_path / 'd/query_info.txt.4711.part', frame.with_name('x.part')
    for p in left: p.write_text('half')
    assert command(*make).returncode == 0 and [p.exists() for p in left] == [False, False, True]
    assert foreign[0].exists()


# -- what is cut out ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('box', [(100, 100, 200, 200), (10, 60, 20, 90), (0, 0, np.inf, 20), (0, np.nan, 5, 20), (-50, 0, -20, 9), (0, -50, 9, -20)])
def test_a_box_outside_of_its_picture_has_no_thumbnail(box):
    with pytest.raises(ValueError, match='is not in the picture, of 60 x 50 px; give left, top, right, bottom'): thumbnail(np.zeros((50, 60, 3), np.uint8), box)

def test_a_box_that_is_partly_in_its_picture_has_a_thumbnail():
    for box in ((-5, -9, 4, 9), (58, 40, 99, 99), (0, 0, 0, 9), (5, 5, 5, 5)): assert thumbnail(np.zeros((50, 60, 3), np.uint8), box).shape[0] == 160
