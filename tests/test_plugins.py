"Own parts: from a file, through the shell, in two processes; and what is said when they are not there."
import json
import os
import pickle
import re
import runpy
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch
from torch import nn

from person_search_nb import recipes  # noqa: F401  every table is filled
from person_search_nb.attention import register_attention
from person_search_nb.augmentation import augmentation, register_augmentation
from person_search_nb.callbacks import Callback
from person_search_nb.files import DataError
from person_search_nb.loading import make_loader
from person_search_nb.model_files import load_model, save_model
from person_search_nb.models import build_model
from person_search_nb.oim import labelled_cross_entropy
from person_search_nb.plugins import check_plugin, load_plugin, PLUGINS, Registry, REGISTRIES, use_plugin
from person_search_nb.presets import changed, check_here, make_recipe
from person_search_nb.specs import open_dataset, opener
from person_search_nb.recipes import read_recipe

pytestmark = pytest.mark.usefixtures('no_curves')
KINDS = dict(attention='se', id_loss='arcface', trunk='plain', roi_op='finer', augment='shadow', optimizer='lion', schedule='poly', reader='blocks:6', term='relations', callback='bell', model='mine')
SMALL = 'steps=4 warmup=0 batch_size=2 start= imprint=False size= rpn_channels=16 rois_per_image=4 proposals=(12,8) device=cpu checkpoint_every=2'.split()
OWN = 'optimizer=lion lr=0.0005 schedule=poly schedule.power=2 augment=shadow augment.depth=0.3 id_loss.margin=0.2 attention.reduction=8 roi_op.times=3'.split()


@pytest.fixture(scope='module')
def mine(root, tmp_path_factory):
    "The plug-in of the tutorial: the file its cells write."
    cells = json.loads((root / 'tutorials/16_bring_your_own.ipynb').read_text(encoding='utf-8'))['cells']
    sources = [''.join(c['source']) for c in cells if c['cell_type'] == 'code']
    parts = [s.partition('\n') for s in sources if s.startswith('%%writefile')]
    file = tmp_path_factory.mktemp('plugin') / 'mine.py'
    file.write_text('\n'.join(body for line, _, body in parts if line.split()[-1] == 'mine.py'))
    return file


@pytest.fixture(autouse=True, scope='module')
def no_plugins():
    "None but those that a test names."
    with pytest.MonkeyPatch.context() as m:
        m.delenv(PLUGINS, raising=False)
        yield


def fresh(*words, processes):
    "A command in new interpreters that `torchrun` starts."
    run = [sys.executable, '-c', 'from person_search_nb.cli import main; main()']
    run = [sys.executable, '-m', 'torch.distributed.run', '--standalone', f'--nproc-per-node={processes}', '--no-python', *run]
    return subprocess.run([*run, *map(str, words)], capture_output=True, text=True)


def script(name):
    "What `python name` does."
    runpy.run_path(name, run_name='__main__')


# the tables -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('kind', [k for k, r in REGISTRIES.items() if r.check and k not in ('model', 'reader', 'callback')])
def test_the_packages_own_parts_do_what_parts_must(kind):
    for name in REGISTRIES[kind].names(): assert check_plugin(kind, name, lambda line: None)


def test_a_callback_hears_something(registries):
    assert check_plugin('callback', 'tensorboard', lambda line: None)
    class Deaf(Callback): pass
    with pytest.raises(ValueError, match='has to define one of start, step'): check_plugin('callback', Deaf, lambda line: None)


def test_the_packages_own_reader_does_what_readers_must(registries):
    spec = 'synth:tiny?train_scenes=6&test_scenes=4&train_ids=6&test_ids=4&queries=3&gallery=3&size=96x160'
    assert len(check_plugin('reader', spec, lambda line: None)) == 3
    @opener('two')
    def two(path, options, split, **kw): return open_dataset(spec + ('&seed=5' if split == 'query' else ''), split, **kw)
    with pytest.raises(ValueError, match="reader 'two:x': .*is not the gallery's scene"): check_plugin('reader', 'two:x', lambda line: None)


@pytest.mark.parametrize('name', ['hdl-student-fast', 'e2e-rss', 'clsa', 'qeeps'])
def test_the_packages_own_systems_do_what_systems_must(name): assert len(check_plugin('model', name, lambda line: None)) == 4


class OneValue(nn.Module):
    def __init__(self, channels): super().__init__()
    def forward(self, x): return x


class NoGradient(nn.Module):
    def __init__(self, channels): super().__init__(); self.w = nn.Parameter(torch.ones(1))
    def forward(self, x): return x.detach(), None


class Forgets(nn.Module):
    def __init__(self, channels): super().__init__(); self.w = torch.rand(1)
    def forward(self, x): return x * self.w, None


class Negative(nn.Module):
    def __init__(self, channels): super().__init__()
    def forward(self, x): return x, -x


@pytest.mark.parametrize('part,said', [(OneValue, r'it has to return \(H, A\)'), (NoGradient, 'element 0 of tensors does not require grad|a gradient has to reach'),
                                       (Forgets, 'state dict of another'), (Negative, r'A has to lie in 0\.\.1')])
def test_a_part_that_does_not_is_told_what(part, said, registries):
    with pytest.raises(ValueError, match=f"attention '{part.__name__}': .*({said})"): check_plugin('attention', part, lambda line: None)


def test_a_loss_that_counts_nameless_people_or_whose_memory_differs(registries):
    class Counts(nn.Module):
        def __init__(self, dim, num_ids): super().__init__(); self.w = nn.Linear(dim, num_ids)
        def logits(self, x): return self.w(x)
        def forward(self, x, ids): return self.w(x).square().sum()
    with pytest.raises(ValueError, match='people without identity have to cost 0'): check_plugin('id_loss', Counts, lambda line: None)


def test_names_are_taken_once_and_unknown_ones_are_said(registries):
    with pytest.raises(ValueError, match="attention 'arm' is one of the package; register yours as another name"): register_attention('arm')(OneValue)
    with pytest.raises(ValueError, match="unknown attention 'amr': choose one of arm, .*--plugin FILE"): registries['attention']['amr']
    with pytest.raises(ValueError, match='unknown kind of part'): check_plugin('atention', 'arm')
    with pytest.raises(ValueError, match="unknown attention 'amr'"): check_plugin('attention', 'amr')


def test_a_cell_of_the_packages_notebooks_may_be_run_again(registries):
    "In a notebook its definitions belong to `__main__`, before or after the package's own are imported."
    table = registries['attention']
    again = type('ARM', (table['arm'],), dict(__module__='__main__'))
    assert table.add('arm', again) is again and table['arm'] is again and table.origin['arm'] == ''
    first, own = (type('Later', (OneValue,), dict(__module__=m)) for m in ('__main__', 'person_search_nb.attention'))
    table.add('later', first); table.add('later', own)
    assert table['later'] is own and table.origin['later'] == ''
    with pytest.raises(ValueError, match="'arm' is one of the package"): table.add('arm', type('Other', (OneValue,), dict(__module__='__main__')))


# files ----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('text,said', [('x = 1\n1/0\n', r'ZeroDivisionError: division by zero, line 2'), ('def f(:\n', 'SyntaxError.*line 1'), ('import nothing_of_this_name\n', 'ModuleNotFoundError.*line 1'),
                                       ('from person_search_nb.attention import register_attention\nregister_attention("arm")(len)\n', "'arm' is one of the package")])
def test_a_plugin_with_a_mistake_is_one_line(text, said, tmp_path, registries, shell):
    file = tmp_path / 'with_a_mistake.py'
    file.write_text(text)
    with pytest.raises(ValueError, match=f'with_a_mistake.py: this plug-in cannot be loaded .*{said}'): load_plugin(str(file))
    ran = shell('--plugin', file, 'presets', 'hdl-teacher')
    assert ran.returncode == 1 and 'Traceback' not in ran.stderr and 'with_a_mistake.py' in ran.stderr


def test_no_file_and_a_name_that_is_taken(tmp_path, registries, command):
    with pytest.raises(ValueError, match='absent.py: no such plug-in file'): load_plugin(str(tmp_path / 'absent.py'))
    (tmp_path / 'json.py').write_text('')
    with pytest.raises(ValueError, match="json.py: there is already a module of the name 'json'"): load_plugin(str(tmp_path / 'json.py'))
    assert command('train', '--plugin').stderr.strip() == 'person-search: --plugin needs a file, or the name of a module'


def test_an_installed_package_is_found_and_a_broken_one_only_warns(tmp_path, shell, monkeypatch):
    for name, text in (('good_parts', 'from person_search_nb.attention import register_attention, NoAttention\nregister_attention("nothing")(NoAttention)\n'), ('bad_parts', '1/0\n')):
        (tmp_path / f'{name}.py').write_text(text)
        info = tmp_path / f'{name}-1.0.dist-info'
        info.mkdir()
        (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n')
        (info / 'entry_points.txt').write_text(f'[person_search_nb.plugins]\n{name} = {name}\n')
    monkeypatch.syspath_prepend(tmp_path)  # a process begins with the path of the one that starts it
    ran = shell('presets', 'hdl-teacher', '--set', 'attention=nothing')
    assert ran.returncode == 0 and "| `attention` | `'nothing'` | given |" in ran.stdout, ran.stderr
    assert 'bad_parts: this plug-in cannot be loaded (ZeroDivisionError' in ran.stderr


def imported(place):
    "Import the package once more, in a process where all that it stands on is there."
    os.environ[PLUGINS] = str(place / 'loud.py')
    for name in [n for n in sys.modules if n.partition('.')[0] == 'person_search_nb']: del sys.modules[name]
    import person_search_nb.recipes, person_search_nb.cli  # noqa: E401, F401
    (place / 'done').touch()
    person_search_nb.plugins.load_plugins()


def test_importing_loads_nobodys_code(tmp_path, child):
    "Only the call that loads plug-ins does: the file notes whether the package was there before."
    (tmp_path / 'loud.py').write_text(f'from pathlib import Path\nhere = Path({str(tmp_path)!r})\n(here / "loaded").write_text(str((here / "done").exists()))\n')
    child(imported, tmp_path).join()
    assert (tmp_path / 'done').exists() and (tmp_path / 'loaded').read_text() == 'True'


# one of each ----------------------------------------------------------------------------------------------------------

def test_the_tutorials_parts_do_what_parts_must(mine, registries):
    use_plugin(str(mine))
    for kind, name in KINDS.items(): assert check_plugin(kind, name, lambda line: None), kind


@pytest.fixture(scope='module')
def run(mine, shell, tmp_path_factory):
    "A training of the tutorial's system with everything of its own, through the shell."
    out = tmp_path_factory.mktemp('run') / 'r'
    words = ['train', '--model', 'mine', '--data', 'blocks:6', '--preset', 'tiny', '--out', out, '--callbacks', 'bell', '--set', *SMALL, *OWN]
    ran = shell('--plugin', mine, *words)
    assert ran.returncode == 0 and 'ding: mAP' in ran.stdout, ran.stderr
    return out, words


def test_trained_through_the_shell_with_settings_of_its_parts(run, mine, shell):
    out, words = run
    recipe = json.loads((out / 'recipe.json').read_text())
    assert recipe['net']['options'] == dict(id_loss=dict(margin=.2), attention=dict(reduction=8), roi_op=dict(times=3))
    assert recipe['train']['own'] == dict(schedule=dict(power=2), augment=dict(depth=.3)) and recipe['train']['optimizer'] == 'lion'
    again = shell(*words, env={PLUGINS: str(mine)})  # it is finished: the same call finds it
    assert again.returncode == 0, again.stderr


def test_the_file_says_what_it_wants(run, mine, registries, shell):
    model = run[0] / 'model.safetensors'
    ran = shell('evaluate', model, '--data', 'synth:tiny')
    assert ran.returncode == 1 and "needs model 'mine' of mine.py: " in ran.stderr and '--plugin' in ran.stderr and 'Traceback' not in ran.stderr
    with pytest.raises(ValueError, match="model.safetensors: needs model 'mine' of mine.py: import it first"): load_model(model)
    with pytest.raises(ValueError, match=r"recipe.json: needs \w+ '\w+' of mine.py: .*--plugin mine.py.*@register_"): read_recipe(run[0] / 'recipe.json')
    use_plugin(str(mine))
    net = load_model(model)
    assert net.id_loss.margin == .2 and type(net.attention[0]).__name__ == 'SqueezeExcite' and net.roi_head.pooler.settings == dict(times=3)
    assert read_recipe(run[0] / 'recipe.json').net['options']['id_loss'] == dict(margin=.2)


@pytest.mark.parametrize('command', [['evaluate', 'M', '--data', 'blocks:6'], ['index', 'blocks:6', '--model', 'M', '--out', 'gallery'], ['cost', '--models', 'mine']])
def test_other_commands_with_the_plugin(command, run, mine, tmp_path, shell):
    ran = shell(*[run[0] / 'model.safetensors' if w == 'M' else w for w in command], '--plugin', mine, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr


def test_two_processes_train_with_it(run, mine, tmp_path):
    out, words = run
    words = [tmp_path / 'two' if w == out else w for w in words]
    ran = fresh('--plugin', mine, *words, processes=2)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert (tmp_path / 'two/model.safetensors').exists()


def test_a_class_in_place_of_its_name(registries, tmp_path):
    class Doubling(nn.Module):
        def __init__(self, channels, by=2.): super().__init__(); self.by = by
        def forward(self, x): return self.by * x, None
    net = build_model('hdl-student-fast', 3, width=.125, attention=Doubling, options=dict(attention=dict(by=3.)))
    assert net.config['attention'] == 'Doubling' and net.attention[0].by == 3
    save_model(net, tmp_path / 'm.safetensors')
    assert load_model(tmp_path / 'm.safetensors').attention[0].by == 3
    recipe = make_recipe('hdl-student-fast', 'synth:tiny', 'tiny', attention=Doubling, **{'attention.by': 4.})
    assert recipe.net['options'] == dict(attention=dict(by=4.))
    del registries['attention']['Doubling']
    with pytest.raises(ValueError, match=r"needs attention 'Doubling' of test_plugins: .*@register_attention\('Doubling'\) above it"): load_model(tmp_path / 'm.safetensors')


@pytest.mark.parametrize('typed,said', [('id_loss.margin=0.3', "id_loss 'softmax' has no setting 'margin'"), ('attention.reductin=3', 'did you mean reduction'), ('optimizer.beta=3', "optimizer 'sgd' has no setting 'beta'"),
                                        ('augment.hue=3', 'has no settings of its own|augment'), ('attention=se', "attention='se': expected one of arm.*--plugin FILE"), ('trunk.depth=3', 'trunk'), ('options=3', 'options=3')])
def test_settings_that_are_not_there(typed, said, command):
    ran = command('presets', 'hdl-student-fast', '--set', typed)
    assert ran.returncode == 1 and re.search(said, ran.stderr) and 'Traceback' not in ran.stderr, ran.stderr


def test_a_changed_recipe_keeps_what_other_parts_were_told():
    recipe = make_recipe('hdl-student-fast', 'synth:tiny', 'tiny', **{'attention.reduction': 8, 'roi_op.sampling_ratio': 3})
    other = changed(recipe, **{'attention.reduction': 4, 'optimizer.betas': (.9, .9)})
    assert other.net['options'] == dict(attention=dict(reduction=4), roi_op=dict(sampling_ratio=3)) and other.train.own == dict(optimizer=dict(betas=(.9, .9)))
    with pytest.raises(ValueError, match='did you mean reduction'): changed(recipe, **{'attention.reductin': 4})


def test_settings_of_a_part_decide_a_run(registries):
    "Another margin is another run; and a registry is a plain dict for those who read it."
    a, b = (make_recipe('hdl-student-fast', 'synth:tiny', 'tiny', **{'attention.reduction': n}) for n in (8, 16))
    assert a != b and isinstance(registries['attention'], dict) and isinstance(registries['attention'], Registry)


# wrong parts are told before a training begins ------------------------------------------------------------------------

class Listed(nn.Module):
    def __init__(self, dim, num_ids): super().__init__(); self.w = nn.Linear(dim, num_ids)
    def logits(self, x): return self.w(x)
    def forward(self, x, ids): return dict(id=self.w(x).sum())


class Margin(nn.Module):
    def __init__(self, dim, num_ids, margin=.3): super().__init__(); self.w, self.margin = nn.Linear(dim, num_ids), margin
    def logits(self, x): return self.w(x)
    def forward(self, x, ids): return labelled_cross_entropy(self.w(x) - self.margin, ids)


class OnlyPicture:
    def __call__(self, image, target, rng=None): return image


class Nowhere:
    def __call__(self, image, target, rng=None): return image * float('nan'), target


class Outside:
    def __init__(self, by=0.): self.by = by
    def __call__(self, image, target, rng=None): return image, dict(target, boxes=target['boxes'] + self.by)


def in_letters(config, step, n): return 'x'
def of_one(step): return 1.
def uncut(features, boxes, size, scale): return features
def no_optimizer(groups, lr): return None
def no_trunk(width=1., weights=None): return nn.Linear(1, 1)
def no_system(num_ids, heights, width, **kw): return 5


WRONG = [(dict(attention=OneValue), r"attention 'OneValue' .*: it has to return \(H, A\)"), (dict(id_loss=Listed), "id_loss 'Listed' .*: loss.* has to be one number"),
         ({'id_loss': Margin, 'id_loss.margin': 'big'}, r"id_loss 'Margin' \(test_plugins, id_loss.margin='big'\): TypeError"), (dict(augment=OnlyPicture), r"augment 'OnlyPicture' .*has to return \(image, target\)"),
         (dict(augment=Nowhere), "augment 'Nowhere' .*finite, from 0 to 1"), ({'augment': Outside, 'augment.by': 5000.}, "augment 'Outside' .*augment.by=5000.*boxes have to lie in the 80x60 picture"),
         (dict(schedule=in_letters), "schedule 'in_letters' .*a number from 0, not 'x'"), (dict(schedule=of_one), "schedule 'of_one' .*positional argument"), (dict(roi_op=uncut), "roi_op 'uncut' .*regions have to be"),
         (dict(optimizer=no_optimizer), "optimizer 'no_optimizer' .*torch's form, not a NoneType"), (dict(trunk=no_trunk), "trunk 'no_trunk' .*a Backbone, not a Linear"), (dict(model=no_system), "model 'no_system' .*")]


@pytest.mark.parametrize('given,said', WRONG, ids=[' '.join(map(str, g)) for g, _ in WRONG])
def test_a_wrong_part_is_named_before_a_training_begins(given, said, registries, tmp_path):
    "With its kind, its name, where it is from, and the command that tries it."
    given = dict(model='hdl-student-fast') | given
    with pytest.raises(ValueError, match=said) as e: check_here(make_recipe(data='synth:tiny', preset='tiny', **given))
    kind = said.partition(' ')[0]
    assert f'; try person-search check-plugin {kind} ' in str(e.value) and '\n' not in str(e.value) and '(test_plugins' in str(e.value)


def test_a_sound_part_is_tried_once_and_changes_no_random_state(registries, monkeypatch):
    tried = []
    monkeypatch.setattr('person_search_nb.presets.check_plugin', lambda *a: tried.append(a[:2]) or check_plugin(*a))
    recipe = make_recipe('hdl-student-fast', 'synth:tiny', 'tiny', id_loss=Margin, augment=Outside)
    torch.manual_seed(7); before = torch.get_rng_state()
    for _ in range(2): check_here(recipe)
    assert tried == [('id_loss', 'Margin'), ('augment', 'Outside')] and torch.equal(before, torch.get_rng_state())
    check_here(changed(recipe, **{'id_loss.margin': .5}))
    assert tried[2:] == [('id_loss', 'Margin')] and registries['id_loss'].trial is None


def test_a_reader_of_something_else_is_one_line(registries):
    @opener('listed')
    def listed(path, options, split, **kw): return [1, 2]
    with pytest.raises(ValueError, match=r"reader 'listed' \(test_plugins\): for split=train it has to return a SceneDataset, not a list; .*check-plugin reader 'listed:x'"): open_dataset('listed:x')


def darker(image, target, rng, by=.5): return image * by, target


def test_a_function_is_an_augmentation(registries):
    "By its name, with settings, and in place of its name; a factory of functions is called."
    register_augmentation('darker')(darker)
    assert check_plugin('augment', 'darker', lambda line: None)
    image, rng = torch.ones(3, 4, 4), torch.Generator()
    assert augmentation('darker', by=.25)(image, {}, rng)[0].max() == .25 and pickle.loads(pickle.dumps(augmentation('darker')))(image, {}, rng)[0].max() == .5
    assert make_recipe('hdl-student-fast', 'synth:tiny', 'tiny', augment=darker).train.augment == 'darker'
    with pytest.raises(ValueError, match='has no setting'): augmentation('darker', rng=3)
    register_augmentation('factory')(lambda by=.5: lambda image, target, rng: (image * by, target))
    assert augmentation('factory', by=.1)(image, {}, rng)[0].max() < .11


@pytest.mark.parametrize('part,said', [(Nowhere(), "augmentation 'Nowhere', scene .*: the picture has to be finite"), (Outside(5000.), "augmentation 'Outside', scene .*: boxes have to lie"), (OnlyPicture(), 'has to return')])
def test_the_loader_looks_at_what_an_augmentation_returns(part, said):
    data = open_dataset('synth:tiny?train_scenes=2&test_scenes=2&train_ids=3&test_ids=3&queries=1&gallery=1&size=96x160', progress=False)
    with pytest.raises(DataError, match=said): list(make_loader(data, 2, augment=part))


SCRIPT = """
from torch import nn
from person_search_nb.model_files import save_model
from person_search_nb.models import build_model
{decorator}
class SE(nn.Module):
    def __init__(self, channels): super().__init__()
    def forward(self, x): return x, None
if __name__ == '__main__':
    save_model(build_model('hdl-student-fast', 3, width=.125, attention=SE), 'm.safetensors')
"""


def test_a_class_of_a_script_is_found_where_the_message_says(tmp_path, registries, monkeypatch, child):
    own, model = tmp_path / 'own_script.py', tmp_path / 'm.safetensors'
    own.write_text(SCRIPT.format(decorator=''))
    with monkeypatch.context() as m:
        m.chdir(tmp_path)
        ran = child(script, own.name)
        ran.join()
    assert ran.exitcode == 0
    with pytest.raises(ValueError, match=r"needs attention 'SE' of own_script.py: .*--plugin own_script.py.*, with @register_attention\('SE'\) above it there"): load_model(model)
    own.write_text(SCRIPT.format(decorator="from person_search_nb.attention import register_attention\n@register_attention('SE')"))
    monkeypatch.syspath_prepend(tmp_path)
    load_plugin(str(own))
    assert type(load_model(model).attention[0]).__name__ == 'SE'


def test_a_recipe_notes_plugins_only_where_there_are_some(registries):
    plain = make_recipe('hdl-student-fast', 'synth:tiny', 'tiny')
    assert recipes._noted(plain) == asdict(plain)
    assert recipes._noted(changed(plain, augment=Outside))['plugins'] == {'augment Outside': 'test_plugins'}


# in the shell ---------------------------------------------------------------------------------------------------------

def test_a_part_is_checked_by_a_command(mine, command, registries):
    ran = command('check-plugin', 'attention', 'se')
    assert ran.returncode == 1 and ran.stderr.startswith("person-search check-plugin: unknown attention 'se': choose one of arm") and '--plugin FILE' in ran.stderr and ran.stderr.count('\n') == 1
    ran = command('check-plugin', 'attention', 'se', '--plugin', mine)
    assert ran.returncode == 0 and ran.stdout.count('✓') == 5 and "attention 'se': all of that is as it must be" in ran.stdout, ran.stderr
    assert command('check-plugin', 'reader', 'blocks:6').returncode == 0
    ran = command('check-plugin', 'atention', 'se')
    assert ran.returncode == 1 and "unknown kind of part 'atention': choose one of" in ran.stderr and 'attention' in ran.stderr
    register_attention('negative')(Negative)
    ran = command('check-plugin', 'attention', 'negative')
    assert ran.returncode == 1 and "attention 'negative': ValueError: A has to lie in 0..1" in ran.stderr and ran.stderr.count('\n') == 1 and '✓' in ran.stdout


def test_galleries_and_exports_of_a_model_with_own_parts(mine, command, registries, monkeypatch, tmp_path):
    "With the plug-in they are made and searched; without it one line names the file and the plug-in; what is exported needs none."
    pytest.importorskip('onnxruntime')
    model, gallery, graph = tmp_path / 'm.safetensors', tmp_path / 'g', tmp_path / 'm.onnx'
    use_plugin(str(mine))
    net = build_model('hdl-student-fast', 3, heights=[30., 60., 90.], width=.125, rpn_channels=16, attention='se', id_loss='arcface', score_threshold=0., detections=5)
    net.size = (96, 160)
    save_model(net, model)
    spec = 'synth:tiny?train_scenes=2&test_scenes=3&train_ids=3&test_ids=3&queries=2&gallery=2&size=96x160'
    asked = ['search', '--gallery', gallery, '--image', 0, '--box', '10,10,60,90', '--device', 'cpu']
    calls = dict(index=['index', spec, '--model', model, '--out', gallery, '--device', 'cpu'], search=asked, export=['export', model, graph], trunk=['export', model, tmp_path / 't.safetensors', '--trunk'])
    for name, call in calls.items():
        if name == 'search': call[call.index(0)] = open_dataset(spec, 'gallery').names[0]
        ran = command('--plugin', mine, *call)
        assert ran.returncode == 0, (name, ran.stderr)
        if name == 'search': assert len(ran.stdout.splitlines()) > 1
    monkeypatch.setenv(PLUGINS, '')
    for r in registries.values():
        for k in [k for k, place in r.origin.items() if place == 'mine.py']: del r[k], r.origin[k]
    for name, call in calls.items():
        call = [str(w).replace('m.onnx', 'n.onnx').replace('t.safe', 'u.safe') if w != gallery or name == 'search' else tmp_path / 'h' for w in call]
        ran = command(*call)
        said = ran.stderr.strip().splitlines()[-1]
        assert ran.returncode == 1 and "m.safetensors: needs attention 'se' of mine.py: " in said and '--plugin' in said and 'Traceback' not in ran.stderr, (name, ran.stderr)
    assert not (tmp_path / 'h').exists() and not (tmp_path / 'n.onnx').exists()
    ran = command('index', spec, '--model', graph, '--out', tmp_path / 'i', '--device', 'cpu')
    assert ran.returncode == 0, ran.stderr
