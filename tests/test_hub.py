"""Model files on a hub: a small one on this machine, a stranger's repository, no network."""
import json, os
from pathlib import Path
import pytest, torch

pytest.importorskip('huggingface_hub')

from person_search_nb.model_cards import push_model
from person_search_nb.datasets import open_dataset
from person_search_nb.model_files import load_model, save_model, shipped_trunk
from person_search_nb.presets import check_here, fingerprint, make_recipe
from person_search_nb.recipe_settings import change
from person_search_nb.recipes import read_recipe, run_recipe, same_run
from person_search_nb.runs import OtherRun
from person_search_nb.systems import build_model


@pytest.fixture
def hub(monkeypatch, tmp_path):
    "The server of the notebook that teaches it."
    root, space = Path(__file__).parent.parent, dict(os=os)
    for c in json.loads((root/'nbs/tools/hub.ipynb').read_text())['cells']:
        source = ''.join(c['source'])
        if source.startswith(('import base64', 'class SmallHub', 'def sent_bytes', '@contextmanager')): exec(source, space)
    with space['small_hub']() as server: yield server


def test_there_and_back(hub, monkeypatch):
    monkeypatch.setenv('HF_TOKEN', 'hf_of_a_test')
    net = build_model('hdl-student-fast', 3, heights=[30] * 11, width=0.125).eval()
    push_model(net, 'some/one')
    assert sorted(hub.repositories['some/one']) == ['README.md', 'model.safetensors']
    card = hub.repositories['some/one']['README.md'].decode()
    assert card.startswith('---\nlibrary_name: person_search_nb\n') and "load_model('hf:some/one')" in card
    again = load_model('hf:some/one')
    assert again.config == net.config
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in net.state_dict().items())
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')     # fetched once, it opens without a network
    assert load_model('hf:some/one').config == net.config


def test_a_strangers_repository(hub, tmp_path):
    "Only model.safetensors is looked at; a pickle or code beside it is not fetched, and a damaged file is refused in one line."
    hub.repositories['e/vil'] = {'pytorch_model.bin': b'\x80\x04.', 'modeling.py': b'import os', 'config.json': b'{"auto_map": {}}'}
    with pytest.raises(ValueError, match='e/vil: holds no model.safetensors; only files of numbers') as e: load_model('hf:e/vil')
    assert '\n' not in str(e.value)
    hub.repositories['e/vil2'] = {'model.safetensors': b'\x80\x04.'}
    with pytest.raises(ValueError, match='not a model file of this library'): load_model('hf:e/vil2')
    with pytest.raises(ValueError, match='there is no such repository.*or it is private'): load_model('hf:no/one')
    for name in ('hf:one', 'hf:../../etc', 'hf:a/b/c'):
        with pytest.raises(ValueError, match='is no repository of the Hugging Face hub'): load_model(name)


def test_without_a_network(monkeypatch, tmp_path):
    monkeypatch.setenv('HF_ENDPOINT', 'http://127.0.0.1:9')
    for k in ('HTTPS_PROXY', 'https_proxy', 'ALL_PROXY', 'all_proxy'): monkeypatch.delenv(k, raising=False)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    for f in (lambda: load_model('hf:some/one'), lambda: push_model(shipped_trunk('hdl-student-fast'), 'some/one')):
        with pytest.raises(ConnectionError, match='cannot be reached') as e: f()
        assert '\n' not in str(e.value)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'huggingface_hub', None)
    with pytest.raises(ValueError, match=r"needs the package huggingface_hub: pip install 'person_search_nb\[hub\]'"): load_model('hf:some/one')


SPEC = 'synth:tiny?train_scenes=4&train_ids=6&test_scenes=4&test_ids=6&queries=4&gallery=4'

def recipe(name='hdl-student-fast', **kw):
    settings = dict(start='', steps=2, batch_size=2, checkpoint_every=1, device='cpu', size=(128, 224), width=0.125, rpn_channels=16, pairs=False, data=SPEC) | kw
    return make_recipe(name, settings.pop('data'), 'tiny', **settings)

def a_teacher(seed=0):
    torch.manual_seed(seed)
    data = open_dataset(SPEC, 'train', progress=False)
    return build_model('hdl-student-fast', data.num_ids, heights=[30] * 11, width=0.125, rpn_channels=16).eval()


def test_start_and_teacher_from_the_hub(hub, monkeypatch, tmp_path):
    "A recipe names them as it names files; its run goes on without a network, and not with another teacher of that name."
    from safetensors.torch import save
    monkeypatch.setenv('HF_TOKEN', 'hf_of_a_test')
    net = a_teacher()
    push_model(net, 'some/teacher')
    hub.repositories['some/trunk'] = {'model.safetensors': save({f'module.{k}': v.contiguous() for k, v in a_teacher(1).state_dict().items()})}
    r = recipe(start='hf:some/trunk', teacher='hf:some/teacher', form='norm')
    run_recipe(r, tmp_path/'run', progress=False)
    told = json.loads((tmp_path/'run/start.json').read_text())
    assert told['start'] == 'hf:some/trunk' and told['weights'][0] == told['weights'][1] and 'start: hf:some/trunk' in told['text']
    noted = read_recipe(tmp_path/'run/recipe.json')
    assert (noted.start, noted.teacher) == ('hf:some/trunk', 'hf:some/teacher')
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    longer = run_recipe(change(noted, steps=3), tmp_path/'run', progress=False, extend=True)[1]
    assert len(longer) == 3
    assert same_run(change(noted, steps=3), tmp_path/'run')
    save_model(net, tmp_path/'mine.safetensors')      # the same file under another name is the same run
    assert same_run(change(noted, steps=3, teacher=str(tmp_path/'mine.safetensors')), tmp_path/'run')
    monkeypatch.delenv('HF_HUB_OFFLINE')
    push_model(a_teacher(2), 'some/teacher')
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path/'cache'))
    with pytest.raises(OtherRun, match='another teacher'): run_recipe(change(noted, steps=3), tmp_path/'run', progress=False)


def test_shipped_teacher(tmp_path):
    "A model that comes with the package teaches by name (its anchors are rounded to half precision), and the run goes on."
    r = recipe('oim', start='', trunk='resnet18', teacher='shipped:hdl-student-fast-taught', teach='detector')
    assert len(run_recipe(r, tmp_path/'run', progress=False)[1]) == 2 and same_run(r, tmp_path/'run')
    assert fingerprint(r) != fingerprint(change(r, teacher='shipped:hdl-teacher'))
    with pytest.raises(ValueError, match="teacher=shipped:nobody: no small trunk of 'nobody' comes with"): check_here(recipe(teacher='shipped:nobody'))


@pytest.mark.parametrize('name', ['start', 'teacher', 'after'])
def test_a_recipe_without_a_network(monkeypatch, tmp_path, name):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path/'cache'))
    with pytest.raises(ConnectionError, match=f'^{name}=hf:some/one: the Hugging Face hub.*cannot be reached.*give the path of the file') as e:
        run_recipe(recipe(**{name: 'hf:some/one'}), tmp_path/'run', progress=False)
    assert '\n' not in str(e.value) and not (tmp_path/'run').exists()
    with pytest.raises(ValueError, match=f'{name}=hf:one: .*is no repository'): check_here(recipe(**{name: 'hf:one'}))


def test_commands_with_names(command, tmp_path, monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.setenv('HF_HOME', str(tmp_path/'cache'))
    done = command('train', '--preset', 'tiny', '--data', SPEC, '--set', 'start=hf:some/one', '--out', tmp_path/'a')
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and 'start=hf:some/one: the Hugging Face hub' in done.stderr
    done = command('distill', 'hf:some/one', '--preset', 'tiny', '--data', SPEC, '--out', tmp_path/'a')
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and 'teacher=hf:some/one: the Hugging Face hub' in done.stderr
