"""How Sphinx sets the pages that docs/pages.py writes: furo, myst-nb with execution off, MathJax from a package; nothing is fetched, neither now nor by a reader."""
import json, runpy, shutil
from configparser import ConfigParser
from importlib.util import find_spec
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import desc, pending_xref
from sphinx.util.fileutil import copy_asset

here = Path(__file__).parent
settings = ConfigParser(delimiters=['='])
settings.read(here.parent/'settings.ini', encoding='utf-8')
project, author, version = (settings['DEFAULT'][k] for k in ('lib_name', 'author', 'version'))
copyright = author

extensions = ['myst_nb', 'sphinx.ext.mathjax']
exclude_patterns = ['links.json']
suppress_warnings = ['myst.header', 'config.cache', 'mystnb.unknown_mime_type']
nb_execution_mode = 'off'
nb_merge_streams = True
nb_render_markdown_format = 'gfm'
nb_ipywidgets_js = {}            # these would come from elsewhere, and pages.py leaves no widgets
myst_enable_extensions = ['dollarmath', 'amsmath', 'deflist', 'attrs_inline']
myst_heading_anchors = 4
myst_dmath_double_inline = True
add_module_names = False
toc_object_entries_show_parents = 'hide'
mathjax_path = 'mathjax/tex-chtml.js'

html_theme = 'furo'
html_title = f'{project} {version}'
html_static_path = ['static']
html_css_files = ['psnb.css']
html_js_files = ['psnb.js']
html_copy_source = False
html_show_sphinx = False
html_theme_options = dict(navigation_with_keys=True)


def copy_mathjax(app, error):
    "What a page with equations asks for: the program, its fonts, rare TeX extensions."
    if error or app.builder.format != 'html': return
    package = Path(find_spec('sphinx-mathjax-offline').origin).parent/'static/mathjax'
    for part in ('tex-chtml.js', 'output/chtml/fonts/woff-v2', 'input/tex/extensions'):
        copy_asset(package/part, Path(app.outdir)/'_static/mathjax'/(part if (package/part).is_dir() else ''))


def copy_page(app, error):
    "The page whose networks run in the browser, where `make page` has written it; none of an earlier site."
    if error or app.builder.format != 'html': return
    pages, to = runpy.run_path(str(here/'pages.py')), Path(app.outdir)/'page'
    shutil.rmtree(to, ignore_errors=True)
    if pages['has_page'](): shutil.copytree(pages['PAGE'], to)


def link_code_words(app, doctree):
    "`box_iou` and `benchmarks/demo.md` in prose become links."
    links = json.loads((Path(app.srcdir)/'links.json').read_text(encoding='utf-8'))
    for word in list(doctree.findall(nodes.literal)):
        above, at = [], word.parent
        while at is not None: above, at = [*above, at], at.parent
        if any(isinstance(a, (nodes.reference, pending_xref, nodes.title, desc)) for a in above): continue
        text = word.astext()
        name, file = links['names'].get(text.removesuffix('()')), links['files'].get(text)
        if name: kind = dict(refdomain='py', reftype='mod' if text == name else 'obj', reftarget=name)
        elif file and file != app.env.docname: kind = dict(refdomain='std', reftype='doc', reftarget='/' + file)
        else: continue
        word.replace_self(pending_xref('', word.deepcopy(), refdoc=app.env.docname, refexplicit=True, refwarn=False, **kind))


def setup(app):
    app.connect('doctree-read', link_code_words)
    app.connect('build-finished', copy_mathjax)
    app.connect('build-finished', copy_page)
