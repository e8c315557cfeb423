"""Tests of dsreg.client."""
