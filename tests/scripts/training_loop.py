"""Training loops written out: with a torch optimizer, with a Keras optimizer, with penalties, and with two networks."""

import keras
import numpy as np
import torch
from keras import layers
from same_start import same_start
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

x, y = load_digits(return_X_y=True)
x = (x / 16.0).astype("float32")
targets = keras.utils.to_categorical(y, 10)
train = TensorDataset(torch.from_numpy(x[:1280]), torch.from_numpy(targets[:1280]))
test = TensorDataset(torch.from_numpy(x[1280:]), torch.from_numpy(targets[1280:]))
batches, test_batches = DataLoader(train, batch_size=64), DataLoader(test, batch_size=64)


def get_model(regularizer=None):
    inputs = keras.Input(shape=(64,), name="digits")
    h = layers.Dense(32, activation="relu", kernel_regularizer=regularizer)(inputs)
    h = layers.Dense(32, activation="relu", activity_regularizer=regularizer)(h)
    model = keras.Model(inputs=inputs, outputs=layers.Dense(10, name="predictions")(h))
    same_start(model)
    return model


# 1. A torch optimizer and a torch loss on the model's parameters.
model = get_model()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
loss_fn = torch.nn.CrossEntropyLoss()
torch_losses = []
for _epoch in range(2):
    for digits, target in batches:
        loss = loss_fn(model(digits), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        torch_losses.append(loss.item())

# 2. A Keras optimizer, a Keras loss, Keras metrics, and the penalties of the layers.
model = get_model(keras.regularizers.L2(1e-3))
optimizer = keras.optimizers.Adam(learning_rate=1e-3)
loss_fn = keras.losses.CategoricalCrossentropy(from_logits=True)
train_accuracy = keras.metrics.CategoricalAccuracy()
test_accuracy = keras.metrics.CategoricalAccuracy()
losses, accuracies, test_accuracies = [], [], []
for _epoch in range(4):
    for digits, target in batches:
        logits = model(digits, training=True)
        loss = loss_fn(target, logits) + sum(model.losses)
        model.zero_grad()
        loss.backward()
        weights = model.trainable_weights
        gradients = [weight.value.grad for weight in weights]
        with torch.no_grad():
            optimizer.apply(gradients, weights)
        train_accuracy.update_state(target, logits)
        losses.append(loss.item())
    accuracies.append(float(train_accuracy.result()))
    train_accuracy.reset_state()
    for digits, target in test_batches:
        test_accuracy.update_state(target, model(digits, training=False))
    test_accuracies.append(float(test_accuracy.result()))
    test_accuracy.reset_state()

# 3. Two networks against each other: one makes digits from noise, the other tells them from real ones.
maker = keras.Sequential([keras.Input((8,)), layers.Dense(32, "relu"), layers.Dense(64, "sigmoid")], name="maker")
critic = keras.Sequential([keras.Input((64,)), layers.Dense(32), layers.LeakyReLU(negative_slope=0.2), layers.Dense(1)])
same_start(maker, 1)
same_start(critic, 2)
critic_optimizer, maker_optimizer = keras.optimizers.Adam(3e-4), keras.optimizers.Adam(4e-4)
loss_fn = keras.losses.BinaryCrossentropy(from_logits=True)
rng = np.random.default_rng(4)
critic_losses, maker_losses = [], []


def step(network, optimizer, loss):
    network.zero_grad()
    loss.backward()
    weights = network.trainable_weights
    with torch.no_grad():
        optimizer.apply([weight.value.grad for weight in weights], weights)
    return loss.item()


for digits, _ in batches:
    noise = torch.from_numpy(rng.normal(size=(len(digits), 8)).astype("float32"))
    mixed = torch.cat([maker(noise).detach(), digits])
    answers = torch.cat([torch.ones(len(digits), 1), torch.zeros(len(digits), 1)])
    critic_losses.append(step(critic, critic_optimizer, loss_fn(answers, critic(mixed))))
    wrong = torch.zeros(len(digits), 1)
    maker_losses.append(step(maker, maker_optimizer, loss_fn(wrong, critic(maker(noise)))))

STEPS = 2 * 20 + 4 * 20 + 2 * 20
RESULTS = {
    "losses with torch's optimizer": torch_losses,
    "losses": losses,
    "accuracy of each epoch": accuracies,
    "test accuracy of each epoch": test_accuracies,
    "penalties": len(model.losses),
    "steps of the optimizer": int(optimizer.iterations),
    "critic": critic_losses,
    "maker": maker_losses,
    "logits": model(torch.from_numpy(x[1280:])).detach().numpy(),
}
