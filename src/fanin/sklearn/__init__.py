"""Estimators for scikit-learn: networks of Dense layers for tables, with numbers, categories and missing values.

`import fanin` leaves this package alone: `import fanin.sklearn` needs scikit-learn.
"""

from fanin.sklearn.classifier import DenseClassifier
from fanin.sklearn.regressor import DenseRegressor

__all__ = ["DenseClassifier", "DenseRegressor"]
