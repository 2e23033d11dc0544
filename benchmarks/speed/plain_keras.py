"""LeNet5 on MNIST as a script with nothing but Keras, for startup.py.

    python -m benchmarks.speed.plain_keras FOLDER FILE  # FOLDER: MNIST's four files, as published

Writes the time to FILE when the first training step has ended, and stops.
"""

import sys
import time
from pathlib import Path

import keras
import numpy as np
from keras import layers

folder, first_step = map(Path, sys.argv[1:])


class FirstStep(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        first_step.write_text(str(time.time()))
        self.model.stop_training = True


images = np.fromfile(folder / "train-images-idx3-ubyte", np.uint8, offset=16)
images = images.reshape(-1, 28, 28, 1) / np.float32(255)
labels = np.fromfile(folder / "train-labels-idx1-ubyte", np.uint8, offset=8)

model = keras.Sequential(
    [
        keras.Input((28, 28, 1)),
        layers.Conv2D(6, 5, activation="relu"),
        layers.AveragePooling2D(2, strides=1),
        layers.Conv2D(16, 5, activation="tanh"),
        layers.AveragePooling2D(2),
        layers.Conv2D(120, 5, activation="tanh"),
        layers.Flatten(),
        layers.Dense(84, activation="tanh"),
        layers.Dense(10, activation="softmax"),
    ]
)
model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(images[:48_000], labels[:48_000], batch_size=32, epochs=1, callbacks=[FirstStep()])
