"""Kernels in C++, built where a compiler is. Everything that they compute is computed by torch where none is."""
