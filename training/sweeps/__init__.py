"""A search for a better recipe, inside a budget of time.

``config.py`` says what is searched, ``search.py`` which settings are tried and which trials go on,
``trial.py`` trains one, ``comparison.py`` says which won and why, and ``sweep.py`` is the whole run.
Only ``trial.py`` loads torch.
"""
