"""Find the best classifier of handwritten digits by cross-validation over a parameter sweep.

Run it with ``python cross_validation.py run``, or wider with ``run --c 0.1,1,10,100 --folds 10``.

A foreach over the candidates holds a foreach over the folds, so each fit is a task of its own: all
of them run in parallel, and one that fails is retried alone. The inner join scores a candidate, the
outer join chooses. The data are scikit-learn's 1,797 digits, which come with the package.
"""

from itertools import product
from statistics import mean, stdev

from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, confusion_matrix
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from evflow import FlowSpec, Parameter, retry, step


class CrossValidation(FlowSpec):
    """Parameters x folds, the best candidate refitted and tested on digits it has never seen."""

    c = Parameter("c", default="0.1,1,10", separator=",", help="SVC's C: how much errors cost.")
    gamma = Parameter("gamma", default="0.003,0.02", separator=",", help="SVC's kernel width.")
    folds = Parameter("folds", default=5, help="Into how many parts to cut the training data.")
    seed = Parameter("seed", default=13, help="Of every random choice: same seed, same result.")

    @step
    def start(self):
        """Load the digits and put a fifth of them away, for the end."""
        images, labels = load_digits(return_X_y=True)
        self.x, self.x_test, self.y, self.y_test = train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=self.seed)
        self.candidates = [{"C": float(c), "gamma": float(gamma)} for c, gamma in product(self.c, self.gamma)]
        self.next(self.split, foreach="candidates")

    @step
    def split(self):
        """Cut the training data for one candidate: the same folds for all, to compare like with like."""
        self.candidate = self.input
        cutter = StratifiedKFold(self.folds, shuffle=True, random_state=self.seed)
        self.parts = list(cutter.split(self.x, self.y))
        self.next(self.fit, foreach="parts")

    @retry(times=2)
    @step
    def fit(self):
        """Fit one candidate on all folds but one and score it on that one."""
        train, held_out = self.input
        model = classifier(self.candidate).fit(self.x[train], self.y[train])
        self.accuracy = accuracy_score(self.y[held_out], model.predict(self.x[held_out]))
        self.next(self.score)

    @step
    def score(self, folds):
        """Inner join: one candidate, the mean and the spread over its folds."""
        self.accuracies = [fold.accuracy for fold in folds]
        self.mean, self.spread = mean(self.accuracies), stdev(self.accuracies)
        self.next(self.choose)

    @step
    def choose(self, candidates):
        """Outer join: rank the candidates, best first."""
        self.leaderboard = sorted(
            ({**each.candidate, "mean": each.mean, "spread": each.spread} for each in candidates),
            key=lambda row: row["mean"],
            reverse=True,
        )
        self.best = {name: self.leaderboard[0][name] for name in ("C", "gamma")}
        self.next(self.refit)

    @step
    def refit(self):
        """Fit the best candidate on all training data; the model is an artifact of this run."""
        self.model = classifier(self.best).fit(self.x, self.y)
        predicted = self.model.predict(self.x_test)
        self.test_accuracy = accuracy_score(self.y_test, predicted)
        self.confusion = confusion_matrix(self.y_test, predicted)
        self.next(self.end)

    @step
    def end(self):
        """Show the ranking."""
        for row in self.leaderboard:
            print("C={C:<5g} gamma={gamma:<6g} accuracy {mean:.4f} ± {spread:.4f}".format(**row))
        print(f"The best one, on the {len(self.y_test)} digits put away: {self.test_accuracy:.4f}")


def classifier(candidate):
    """Build an unfitted model; the scaler is inside, so that it learns from training folds only."""
    return make_pipeline(StandardScaler(), SVC(**candidate))


if __name__ == "__main__":
    CrossValidation()
