"""Person search, taught and built in notebooks: find one person in whole, uncropped scene images.

The names below are imported from their modules when they are first used, so `import person_search_nb` costs nothing."""
__version__ = "0.1.0"

import os as _os

# Threads that spin while they wait for one another make a step forty times as long beside another busy program. OpenMP reads this when torch is imported.
if 'OMP_WAIT_POLICY' not in _os.environ: _os.environ.setdefault('GOMP_SPINCOUNT', '1000')

_HOME = dict(
    open_dataset='datasets', build_model='models', list_models='models', load_model='models', save_model='models',
    HDL='terms', train='training', TrainConfig='settings', make_recipe='presets', run_recipe='recipes',
    evaluate='evaluation', DetectorReID='detector_reid', search_metrics='ranking', detection_metrics='matching', Gallery='search', cost_table='costs',
    draw_boxes='visualize', AttentionExplorer='explorer', SearchExplorer='search_explorer', Run='training_runs',
    sweep='training_runs', compare='comparing', check_plugin='plugins', use_plugin='plugins', Predictions='predictions', Row='paper_tables',
    Embedder='embedder', push_model='model_cards')

__all__ = [*_HOME, '__version__']


def __getattr__(name):
    if name not in _HOME: raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from importlib import import_module
    value = globals()[name] = getattr(import_module(f'.{_HOME[name]}', __name__), name)
    return value


def __dir__(): return sorted({*globals(), *__all__})
