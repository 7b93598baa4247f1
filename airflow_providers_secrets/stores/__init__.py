"""The stores: one package for each vendor, on the vendor's own SDK.

A store is constructed from connection options alone. It knows no prefix, no cache and no Airflow. :mod:`.base` says
what it must be able to do, :mod:`.capabilities` what it may.
"""
