// opened as files, pages may not be read for the excerpts under search results: list the titles alone
if (location.protocol === 'file:' && typeof DOCUMENTATION_OPTIONS !== 'undefined') DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
