"""The publication that all of these are of."""

from __future__ import annotations

from qna._core.about import About

ABOUT = About(
    title="Deconstructing Attention: Investigating Design Principles for Effective Language Modeling",
    authors="Xue, Moosavi, Aletras",
    venue="arXiv 2025",
    arxiv="2510.11602",
    read="the paper with its appendices; the authors' code is named in it and could not be had",
    differs="",
    status="formula",
)
