"""What a user meets first: names at the top of the package, and a command that answers at once."""
import os, subprocess, sys
from importlib import import_module

import pytest

import person_search_nb

SAYS = 'import sys; heavy = {"torch", "torchvision", "matplotlib", "numpy", "PIL"} & set(sys.modules); assert not heavy, heavy'


def fresh(code): return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)


def test_threads_do_not_spin_long():
    "Set before torch reads it, unless someone has chosen."
    ask = 'import os, person_search_nb; print(os.environ.get("GOMP_SPINCOUNT"))'
    unset = {k: v for k, v in os.environ.items() if k not in ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY')}
    told = lambda **env: subprocess.run([sys.executable, '-c', ask], env=unset | env, capture_output=True, text=True).stdout.strip()
    assert [told(), told(GOMP_SPINCOUNT='7'), told(OMP_WAIT_POLICY='active')] == ['1000', '7', 'None']


def test_names_are_those_of_their_modules():
    names = set(person_search_nb.__all__) - {'__version__'}
    assert {'open_dataset', 'build_model', 'load_model', 'HDL', 'train', 'evaluate', 'Gallery', 'AttentionExplorer', 'Run', 'sweep', 'compare', 'check_plugin', 'Predictions', 'Row'} <= names <= set(dir(person_search_nb))
    for name in names:
        value = getattr(person_search_nb, name)
        assert value.__name__ == name and value is getattr(import_module(value.__module__), name)


def test_unknown_name():
    with pytest.raises(AttributeError, match="has no attribute 'Galery'"): person_search_nb.Galery
    with pytest.raises(ImportError): exec('from person_search_nb import Galery')


@pytest.mark.parametrize('code', ['import person_search_nb', 'from person_search_nb.cli import main; sys.argv[1:] = ["--help"]\ntry: main()\nexcept SystemExit: pass',
                                  *(f'from person_search_nb.cli import main; sys.argv[1:] = ["{c}", "--help"]\ntry: main()\nexcept SystemExit: pass' for c in ('train', 'settings', 'search'))])
def test_nothing_heavy_is_loaded_before_it_is_needed(code):
    done = fresh(f'import sys\n{code}\n{SAYS}')
    assert not done.returncode, done.stderr


def test_torchvision_is_loaded_where_it_is_needed():
    "It takes longer than torch: not for a gallery, a data set or a ResNet."
    done = fresh('import sys, person_search_nb.recipes, person_search_nb.models as m; m.build_model("hdl-teacher", 3, width=.125); '
                 'print(*{"torchvision", "torch._dynamo"} & set(sys.modules))')
    assert done.stdout == '\n', done.stdout + done.stderr


def test_nms_needs_torchvision_s_kernels_alone():
    "Finding people does not wait for torch._dynamo; all of torchvision can come later, and says the same."
    done = fresh('import sys, torch; from person_search_nb.boxes import nms; torch.manual_seed(0); b = torch.rand(300, 4); b[:, 2:] += b[:, :2]; s = torch.rand(300); k = nms(b, s, .4); '
                 'print(*{"torchvision", "torch._dynamo"} & set(sys.modules)); import torchvision; assert torch.equal(k, torchvision.ops.nms(b, s, .4)) and torch.equal(k, nms(b, s, .4)) and 1 < len(k) < 300')
    assert (done.returncode, done.stdout) == (0, '\n'), done.stdout + done.stderr
