"""Who answers: one package for each vendor, on the vendor's own SDK.

A store is made from connection options alone. It knows no prefix, no cache and no Airflow; what it must and may be able
to do is in :mod:`.base`.
"""
