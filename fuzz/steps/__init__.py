"""Steps by which random graphs grow, a mix-in class for each family of operations: every public method without arguments adds an operation
with drawn operands and attributes, or raises Error where the values made so far do not allow it."""
