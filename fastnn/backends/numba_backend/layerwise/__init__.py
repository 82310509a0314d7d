"""The layer path: single operations that Python calls, on arrays as users have them.

Here belong the entry points that read array objects, check whether a kernel can work on their
layout, and the kernels for rows at any address that no compiled epoch needs. What both wings use
belongs in `kernels/`; what handles more than one layer belongs in `epoch/`.
"""
