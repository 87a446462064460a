"""`evflow top`: all that goes on in a log, at a glance.

`watch` reads the log and keeps what it folds to, `overview` is what is seen of it, `panel` turns that into lines, `keys` into what the
user asked for, `screen` has the terminal, `command` puts them together.
"""
