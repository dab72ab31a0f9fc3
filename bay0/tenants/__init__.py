"""Tenants that are a plain process of the spine."""
