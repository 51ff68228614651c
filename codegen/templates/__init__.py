"""The templates: which fused graphs they take, and the kernels they make of them."""

from .registry import template_for, template_named, templates

__all__ = ["template_for", "template_named", "templates"]
