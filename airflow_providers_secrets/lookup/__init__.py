"""The path of a lookup: plan → cache → shared cache → one flight → deadline and retries → classify → decode.

:mod:`.resolve` reads top to bottom. Nothing here is imported before the first lookup or fork, except the few modules
that a backend's constructor needs.
"""
