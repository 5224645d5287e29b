"Sources of scenes: what is a film, what is a picture, and which of a folder's files are scenes."
import os

import numpy as np
import pytest

from person_search_nb.files import DataError
from person_search_nb.sources import open_source


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='Windows has no pipes')
def test_a_pipe_is_no_film(tmp_path):
    "It was opened, and waited for somebody to write into it."
    pytest.importorskip('av')
    os.mkfifo(tmp_path/'f.mp4')
    for read in (lambda s: s.scan(), lambda s: s.read('0')):
        with pytest.raises(DataError, match='f.mp4: is a pipe, not a file'): read(open_source(tmp_path/'f.mp4'))
