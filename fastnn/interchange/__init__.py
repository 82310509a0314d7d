"""Networks for other libraries, and from them.

`onnx.py`, `torch.py` and `sklearn.py` import the library that they are named after, and are
imported when first used. `state_dict.py` has PyTorch's names of parameters, and needs no PyTorch.
`records.py` reads what each layer says of itself, of which all of them make what they write.
"""
