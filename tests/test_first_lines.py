"""What people type first, coming from elsewhere: it works, or the message says what to write."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest

import fastnn
from fastnn import SGD, Adam, Dense, Network, ReLU, RMSprop, habits, normalize, standardize

X = np.random.default_rng(0).normal(size=(30, 4))
Y = np.arange(30) % 3


def network(**options) -> Network:
    return Network([Dense(4, 5), ReLU(), Dense(5, 3)], seed=0, **options)


@pytest.mark.parametrize(
    ("name", "like"),
    [
        ("sgd", SGD(0.1)),
        ("momentum", SGD(0.01, momentum=0.9)),
        ("nesterov", SGD(0.01, momentum=0.9, nesterov=True)),
        ("rmsprop", RMSprop()),
        ("adam", Adam()),
        ("Adam", Adam()),
    ],
)
def test_optimisers_by_name(name, like):
    by_name = network(optimizer=name)
    assert repr(by_name.optimizer) == repr(like)
    assert by_name[0].optimizer is by_name[2].optimizer is by_name.optimizer
    assert repr(Dense(4, 3, optimizer=name).optimizer) == repr(like)
    other = network(optimizer=like)
    assert by_name.fit(X, Y).loss == other.fit(X, Y).loss
    by_name.optimizer = "adam"
    assert type(by_name[0].optimizer) is Adam


def test_an_unknown_optimiser():
    with pytest.raises(ValueError, match=r"optimizer: expected one of 'sgd', .*, got 'adagrad'"):
        network(optimizer="adagrad")
    with pytest.raises(TypeError, match=r"write Adam\(...\), with parentheses"):
        network(optimizer=Adam)


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("sparse_categorical_crossentropy", "softmax_cross_entropy"),
        ("CrossEntropyLoss", "softmax_cross_entropy"),
        ("log_loss", "softmax_cross_entropy"),
        ("binary_crossentropy", "binary_cross_entropy"),
        ("BCEWithLogitsLoss", "binary_cross_entropy"),
        ("mean_squared_error", "mse"),
        ("squared_error", "mse"),
        ("MSELoss", "mse"),
        ("MSE", "mse"),
        ("MeanSquaredError", "mse"),
        ("cross-entropy", "softmax_cross_entropy"),
        ("SparseCategoricalCrossentropy", "softmax_cross_entropy"),
    ],
)
def test_names_of_losses_elsewhere(name, loss):
    assert network(loss=name).loss == loss


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("categorical_crossentropy", r"write y.argmax\(axis=1\), and 'softmax_cross_entropy'$"),
        ("BCELoss", "write 'binary_cross_entropy', without a Sigmoid layer before it"),
        ("NLLLoss", "write 'softmax_cross_entropy', without a layer of log-probabilities"),
        ("hinge", r" or a function, got 'hinge'; network.use\(loss, loss_prime\) takes one"),
    ],
)
def test_losses_that_are_not_here(name, message):
    with pytest.raises(ValueError, match=message):
        network(loss=name)


def test_layers_elsewhere():
    with pytest.raises(TypeError, match=r"got 'relu'; write fastnn.ReLU\(\)"):
        Network([Dense(4, 5), "relu", Dense(5, 3)])
    with pytest.raises(TypeError, match=r"write ReLU\(...\), with parentheses"):
        Network([Dense(4, 5), ReLU, Dense(5, 3)])
    with pytest.raises(TypeError, match=r"expected a fastnn\.Layer, got 'conv'$"):
        Network(["conv"])
    with pytest.raises(TypeError, match="activation: expected none, got 'relu'"):
        Dense(4, 5, "relu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": "relu"}, "activation: expected none, got 'relu'; an activation is a layer"),
        ({"in_features": 4}, r"'in_features'; write Dense\(input_units, output_units\)"),
        ({"use_bias": False}, "'use_bias'; every Dense layer has biases"),
        ({"kernel_initializer": "he"}, "'kernel_initializer'; weights=, biases= and l2="),
        ({"rate": 0.1}, "Dense: got an unexpected keyword argument 'rate'; it takes input_units, "),
        ({"lr": 0.1}, "Dense: got an unexpected keyword argument 'lr'; write learning_rate=..."),
    ],
)
def test_arguments_of_dense_elsewhere(arguments, message):
    with pytest.raises(TypeError, match=message):
        Dense(4, 5, **arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: network().fit(X, Y, verbose=1), r"^Network.fit: .* 'verbose'; write progress="),
        (lambda: network().fit(X, Y, batchsize=8), "'batchsize'; did you mean batch_size="),
        (lambda: network().fit(X, Y, lr=0.1), "'lr'; it takes X, y, epochs, batch_size, "),
        (lambda: network().fit(X, Y, 10), "no argument behind X, y, got 3 .*; others .*: epochs="),
        (lambda: network().fit(X), "^Network.fit: expected X, y, got no y$"),
        (lambda: network().evaluate(X, Y, batch_size=8), "it takes X, y, sample_weight$"),
        (lambda: network(metrics=["accuracy"]), "^Network: .* 'metrics'; it takes layers, loss, "),
        (lambda: network(optimiser="adam"), "'optimiser'; write optimizer="),
        (lambda: Network(Dense(4, 5), ReLU()), "no argument behind layers, got 2 .*: loss="),
        (lambda: Dense(100), "^Dense: expected input_units, output_units, got no output_units$"),
        (lambda: SGD(lr=0.1), "^SGD: .* 'lr'; write learning_rate="),
        (lambda: Adam(eps=1e-8), "^Adam: .* 'eps'; write epsilon="),
        (lambda: fastnn.AdamW(betas=1), "^AdamW: .* 'betas'; did you mean beta"),
        (lambda: fastnn.Dropout(rate=0.5), "^Dropout: .* 'rate'; write p="),
        (lambda: fastnn.BatchNorm(), "^BatchNorm: expected units, got no units$"),
        (lambda: fastnn.LeakyReLU(negative_slope=0.1), "'negative_slope'; write slope="),
        (lambda: fastnn.EarlyStopping(pateince=3), "^EarlyStopping: .*; did you mean patience="),
    ],
)
def test_arguments_that_there_are_not(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_what_goes_wrong_inside_is_told_as_it_is():
    def calls_wrongly(rng, shape):
        return calls_wrongly()

    with pytest.raises(TypeError, match=r"calls_wrongly\(\) missing 2 required"):
        Network([Dense(4, 5, weights=calls_wrongly)])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("compile", r"'Network' object has no attribute 'compile'; write Network\(layers, loss="),
        ("summary", r"; write print\(network\), and network.parameter_count"),
        ("state_dict", r"; write network.get_weights\(\)"),
        ("parameter_counts", r"; did you mean 'parameter_count'\?"),
        ("cuda", "has no attribute 'cuda'$"),
        ("_nothing", "has no attribute '_nothing'$"),
    ],
)
def test_attributes_of_networks_elsewhere(name, message):
    with pytest.raises(AttributeError, match=message) as error:
        getattr(network(), name)
    assert error.value.name == name
    assert not hasattr(network(), name)


@pytest.mark.parametrize("name", habits.SET_ELSEWHERE)
def test_what_would_have_no_effect_is_not_set(name):
    net = network()
    with pytest.raises(AttributeError, match=rf"no attribute '{name}'; (write|did you)") as error:
        setattr(net, name, 0.01)
    assert error.value.name == name
    assert name not in vars(net)
    net.score = 0.97  # a note of the user's own
    assert copy.copy(net).score == net.score


@pytest.mark.parametrize("optimizer", [None, SGD(0.1)])
def test_what_is_to_be_written_for_a_learning_rate_has_an_effect(optimizer):
    net = network(optimizer=optimizer)
    of_network, of_layer = re.findall(r"network\S*learning_rate", habits.OF_NETWORKS["lr"])
    exec(f"{of_network if optimizer else of_layer} = 0.0", {"network": net})
    before = net[0].weights.copy()
    net.fit(X, Y)
    np.testing.assert_array_equal(net[0].weights, before)


def test_a_class_of_ones_own_may_have_what_networks_have_not():
    class Rated(Network):
        learning_rate = 0.1

    net = Rated([Dense(4, 3)])
    net.learning_rate = 0.2
    assert net.learning_rate == 0.2


def test_layers_and_a_call():
    net = network()
    assert net.layers == tuple(net)
    np.testing.assert_array_equal(net(X), net.forward(X)[-1])
    with pytest.raises(ValueError, match=r"X: expected shape \[batch, 4\], got \(30, 3\)"):
        net(X[:, :3])


def test_a_single_row():
    net = network()
    with pytest.raises(ValueError, match=r"got \(4,\); a single sample is X\[np.newaxis\]"):
        net.predict(X[0])
    with pytest.raises(ValueError, match=r"got \(4,\); a single sample is \[X\]"):
        net.predict(list(X[0]))
    assert net.predict([list(X[0])]) == net.predict(X[:1])
    assert net.predict(X[0][np.newaxis]).shape == (1,)
    with pytest.raises(ValueError, match=r"got \(3,\)$"):
        net.predict(X[0, :3])


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (Y[:, np.newaxis], ValueError, r"got shape \(30, 1\); write y.ravel\(\)"),
        (fastnn.one_hot(Y, 3), ValueError, r"; of one-hot rows write y.argmax\(axis=1\)"),
        (Y.astype(str), TypeError, r"; names become class ids by np.unique\(y, return_inverse"),
        (Y.astype(str).astype(object), TypeError, "; names become class ids by np.unique"),
        (np.ones((30, 2)), ValueError, r"got shape \(30, 2\)$"),
        (Y[:, np.newaxis], ValueError, "fastnn.sklearn.MLPClassifier takes a column as it is"),
        (Y.astype(str), TypeError, "fastnn.sklearn.MLPClassifier takes them as they are"),
        (Y + 1, ValueError, "got 3 at index 2; of labels that count from 1 write y - 1$"),
        (10 * Y, ValueError, r"got 10 at index 1; np.unique\(y, return_inverse=True\)\[1\] counts"),
        (Y - 1, ValueError, r"got -1 at index 0; np.unique\(y, return_inverse=True\)\[1\] counts"),
        (np.arange(30) % 6, ValueError, "got 3 at index 3; of its 6 classes each needs an output$"),
    ],
)
def test_labels_in_other_forms(labels, error, message):
    with pytest.raises(error, match=message):
        network().fit(X, labels)


@pytest.mark.parametrize("labels", [Y % 2, X[:, 0]])
def test_a_single_output(labels):
    net = Network([Dense(4, 1)], seed=0)
    with pytest.raises(ValueError, match="one output is for 0 and 1 under 'binary_cross_entropy'"):
        net.fit(X, labels)
    net.use("mse")
    net.fit(X, labels)


def test_a_table_with_text():
    table = X.astype(object)
    with pytest.raises(TypeError, match=r"write pandas.get_dummies\(X\).astype\(float\)"):
        network().fit(table, Y)


@pytest.mark.parametrize("scaled", [normalize, standardize])
def test_tables_are_scaled_by_column(scaled):
    rng = np.random.default_rng(1)
    metres, euros = rng.normal(1.7, 0.1, 50), rng.normal(2e5, 5e4, 50)
    table = np.stack([metres, euros, np.full(50, 3.0)], axis=1)
    found = scaled(table, axis=0)
    for j in range(3):
        np.testing.assert_array_equal(found[:, j], scaled(table[:, j]))
    found = scaled(table[:20], table, axis=0)
    np.testing.assert_array_equal(found[:, 0], scaled(metres[:20], metres))
    with pytest.raises(ValueError, match="axis: expected None or 0, got 1"):
        scaled(table, axis=1)
    with pytest.raises(ValueError, match=r"reference: expected shape \[batch, 3\]"):
        scaled(table, table[:, :2], axis=0)
    with pytest.raises(ValueError, match="values: expected shape"):
        scaled(metres, axis=0)
