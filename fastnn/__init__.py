"""fastnn trains multi-layer perceptrons on a CPU, by backprop that is written by hand.

import fastnn

X_train, y_train, X_val, y_val, X_test, y_test = fastnn.load_dataset(flatten=True)
network = fastnn.Network([fastnn.Dense(784, 100), fastnn.ReLU(), fastnn.Dense(100, 10)])
network.fit(X_train, y_train, epochs=5, validation_data=(X_val, y_val), progress=True)
print(network.evaluate(X_test, y_test).accuracy)
"""

from fastnn import activations, initializers, schedules
from fastnn.activations import *  # noqa: F403
from fastnn.augmentation import random_shift
from fastnn.backends import available_backends, get_backend, set_backend, use_backend
from fastnn.callbacks import Callback, Checkpoint, CSVLogger, EarlyStopping, ReduceOnPlateau
from fastnn.datasets import iterate_minibatches, load_dataset, normalize, standardize
from fastnn.divergence import DivergenceError
from fastnn.dropout import Dropout
from fastnn.functional import forward, predict, train
from fastnn.gradcheck import check_gradients, eval_numerical_gradient
from fastnn.layers import Dense, Layer, ReLU, Rescaling
from fastnn.loading import from_sklearn, from_torch, load, resume
from fastnn.loss_functions import (
    binary_crossentropy_with_logits,
    grad_binary_crossentropy_with_logits,
    grad_softmax_crossentropy_with_logits,
    mse,
    mse_prime,
    one_hot,
    softmax,
    softmax_crossentropy_with_logits,
)
from fastnn.losses import BinaryCrossEntropy, MeanSquaredError, SoftmaxCrossEntropy
from fastnn.many import fit_many
from fastnn.network import Network
from fastnn.normalization import BatchNorm
from fastnn.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from fastnn.scores import Evaluation
from fastnn.training import History

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "BatchNorm",
    "BinaryCrossEntropy",
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "Dense",
    "DivergenceError",
    "Dropout",
    "EarlyStopping",
    "Evaluation",
    "History",
    "Layer",
    "MeanSquaredError",
    "Network",
    "Optimizer",
    "RMSprop",
    "ReLU",
    "ReduceOnPlateau",
    "Rescaling",
    "SoftmaxCrossEntropy",
    "available_backends",
    "binary_crossentropy_with_logits",
    "check_gradients",
    "eval_numerical_gradient",
    "fit_many",
    "forward",
    "from_sklearn",
    "from_torch",
    "get_backend",
    "grad_binary_crossentropy_with_logits",
    "grad_softmax_crossentropy_with_logits",
    "initializers",
    "iterate_minibatches",
    "load",
    "load_dataset",
    "mse",
    "mse_prime",
    "normalize",
    "one_hot",
    "predict",
    "random_shift",
    "resume",
    "schedules",
    "set_backend",
    "softmax",
    "softmax_crossentropy_with_logits",
    "standardize",
    "train",
    "use_backend",
]
__all__ += activations.__all__
