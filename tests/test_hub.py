"""Model files on a hub: a small one on this machine, a stranger's repository, no network."""
import json, os
from pathlib import Path
import pytest, torch

pytest.importorskip('huggingface_hub')

from person_search_nb.model_cards import push_model
from person_search_nb.model_files import load_model, shipped_trunk
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
