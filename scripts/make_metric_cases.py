#!/usr/bin/env python3
"""Makes tests/cases/statistics.json: what scikit-learn and scipy say about scores, intervals and tests.

    python3 -m venv venv && venv/bin/pip install numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1
    venv/bin/python scripts/make_metric_cases.py

The same seed gives the same file. What neither library has (DeLong's variance, the correction of Nadeau and Bengio, the
cluster bootstrap, Holm's procedure) is computed here from its definition, by another way than the program takes.
"""

import itertools
import json
import math
from pathlib import Path

import numpy as np
from scipy import optimize, stats
from sklearn import calibration, metrics

OUT = Path(__file__).resolve().parent.parent / "tests" / "cases" / "statistics.json"
Z = stats.norm.ppf(0.975)
BINS = 10
cases = []


def add(kind, **values):
    cases.append({"kind": kind, **values})


def images(rng, n, share, quality, digits=None):
    """Labels and two networks' scores of the positive class, correlated as two networks are."""
    labels = (rng.random(n) < share).astype(int)
    labels[:2], labels[2:4] = 0, 1
    common = rng.normal(size=n)
    scores = []
    for q in quality:
        x = q * (2 * labels - 1) + common + rng.normal(size=n)
        p = 1 / (1 + np.exp(-x))
        scores.append(p if digits is None else np.round(p, digits))
    return labels, scores


# --- DeLong, by the definition: every pair of a positive and a negative image.


def components(labels, s):
    x, y = s[labels == 1], s[labels == 0]
    psi = (x[:, None] > y[None, :]) + 0.5 * (x[:, None] == y[None, :])
    return psi.mean(), psi.mean(axis=1), psi.mean(axis=0)


def delong(rng):
    for n, share, digits in [(120, 0.6, None), (120, 0.6, 1), (300, 0.1, 2), (8, 0.5, None), (60, 0.5, 0)]:
        labels, (a, b) = images(rng, n, share, (0.6, 0.9), digits)
        auc_a, a10, a01 = components(labels, a)
        auc_b, b10, b01 = components(labels, b)
        m, k = a10.size, a01.size
        cov = np.cov(a10, b10) / m + np.cov(a01, b01) / k
        var = cov[0, 0] + cov[1, 1] - 2 * cov[0, 1]
        z = (auc_a - auc_b) / math.sqrt(var)
        assert abs(auc_a - metrics.roc_auc_score(labels, a)) < 1e-12
        half = Z * math.sqrt(cov[0, 0])
        add(
            "delong",
            labels=labels.tolist(), a=a.tolist(), b=b.tolist(),
            auc=[auc_a, auc_b], variance=[cov[0, 0], cov[1, 1]],
            # A perfect ranking has no variance, and then no interval.
            interval=[max(0, auc_a - half), min(1, auc_a + half)] if half else [None, None],
            difference_variance=var, z=z, p=2 * stats.norm.sf(abs(z)),
        )


def mcnemar():
    for b, c, n in [(0, 0, 10), (1, 0, 5), (5, 0, 50), (12, 30, 624), (40, 43, 624), (200, 260, 5000), (1100, 1000, 9000)]:
        exact = stats.binomtest(min(b, c), b + c, 0.5).pvalue if b + c else 1.0
        chi2 = max(abs(b - c) - 1, 0) ** 2 / (b + c) if b + c else None
        p, q = (b + 1) / (n + 2), (c + 1) / (n + 2)
        half = Z * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
        add(
            "mcnemar",
            counts=[b, c, n], exact_p=exact, chi_squared=chi2,
            chi_squared_p=None if chi2 is None else stats.chi2.sf(chi2, 1),
            difference=(b - c) / n, interval=[max(-1, p - q - half), min(1, p - q + half)],
        )


def distributions():
    add(
        "distributions",
        normal=[[z, 2 * stats.norm.sf(abs(z))] for z in (0.0, 0.3, -1.96, 4.0, 9.0)],
        chi_squared=[[x, k, stats.chi2.sf(x, k)] for x, k in ((0.0, 1), (3.84, 1), (40.0, 1), (7.0, 4))],
        t_quantile=[[q, k, stats.t.ppf(q, k)] for q in (0.025, 0.6, 0.975) for k in (1, 2, 4, 14, 3.7, 200)],
        t_two_sided=[[t, k, 2 * stats.t.sf(abs(t), k)] for t in (0.0, -1.3, 2.78, 9.0) for k in (1, 4, 6.5, 30)],
        binomial=[[k, n, stats.binomtest(k, n, 0.5).pvalue] for k, n in ((0, 1), (3, 9), (5, 10), (9, 10), (480, 1000))],
    )


def holm(rng):
    for size in (1, 3, 6):
        p = np.round(rng.random(size) ** 3, 4)
        # Closed testing: the largest, over all sets that hold i, of the set's Bonferroni p-value.
        adjusted = []
        for i in range(size):
            sets = (s for k in range(1, size + 1) for s in itertools.combinations(range(size), k) if i in s)
            adjusted.append(max(min(1.0, len(s) * min(p[j] for j in s)) for s in sets))
        add("holm", p=p.tolist(), adjusted=adjusted)


def repeated(rng):
    for size, held, fitted in [(2, 1.0, 4.0), (5, 1.0, 4.0), (15, 700.0, 4000.0)]:
        a, b = 0.9 + 0.02 * rng.normal(size=size), 0.88 + 0.01 * rng.normal(size=size + 1)
        plain = stats.t.interval(0.95, size - 1, loc=a.mean(), scale=stats.sem(a))
        corrected = stats.t.interval(
            0.95, size - 1, loc=a.mean(), scale=math.sqrt((1 / size + held / fitted) * a.var(ddof=1))
        )
        welch = stats.ttest_ind(a, b, equal_var=False)
        ci = welch.confidence_interval(0.95)
        add(
            "repeated",
            values=a.tolist(), others=b.tolist(), sizes=[held, fitted],
            t_interval=list(plain), corrected=list(corrected),
            welch_p=welch.pvalue, welch_interval=[ci.low, ci.high],
        )


def operating(rng):
    for n, digits in [(150, None), (150, 1), (12, 1)]:
        labels, (s, _) = images(rng, n, 0.4, (0.7, 0.7), digits)
        fpr, tpr, thresholds = metrics.roc_curve(labels, s, drop_intermediate=False)
        # Rounded, so that equal shares are equal.
        fpr, tpr, thresholds = fpr[1:].round(12), tpr[1:].round(12), thresholds[1:]
        chosen = {}
        for wanted in (0.8, 0.9, 0.95, 1.0):
            chosen[f"sensitivity {wanted}"] = thresholds[tpr >= wanted].max()
            possible = thresholds[(1 - fpr).round(12) >= wanted]
            chosen[f"specificity {wanted}"] = possible.min() if possible.size else None
        chosen["youden"] = thresholds[np.argmax((tpr - fpr).round(12))]
        t = chosen["youden"]
        tn, fp, fn, tp = metrics.confusion_matrix(labels, s >= t).ravel()
        ci = stats.binomtest(int(tp), int(tp + fn)).proportion_ci(method="wilson")
        add(
            "operating",
            labels=labels.tolist(), scores=s.tolist(), thresholds=chosen,
            counts=[int(v) for v in (tp, fp, tn, fn)], sensitivity_interval=[ci.low, ci.high],
        )


# --- Calibration.


def table(confidence, so, strategy):
    share, mean = calibration.calibration_curve(so, confidence, n_bins=BINS, strategy=strategy)
    edges = np.linspace(0, 1, BINS + 1)
    if strategy == "quantile":
        edges = np.percentile(confidence, edges * 100)
    # scikit-learn gives no counts: the same bins once more.
    count = np.bincount(np.searchsorted(edges[1:-1], confidence), minlength=BINS)
    count = count[count > 0]
    gap = np.abs(share - mean)
    return {
        "confidence": mean.tolist(), "share": share.tolist(), "count": count.tolist(),
        "ece": float((count * gap).sum() / count.sum()), "mce": float(gap.max()),
    }


def scaled(p, t):
    z = np.log(p) / t
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def calibrate(rng):
    for n, classes, sure in [(203, 2, 2.5), (118, 2, 0.4), (157, 3, 3.0)]:
        z = rng.normal(size=(n, classes))
        truth = np.array([rng.choice(classes, p=np.exp(r) / np.exp(r).sum()) for r in z])
        p = scaled(np.exp(z), 1 / sure)
        p /= p.sum(axis=1, keepdims=True)
        confidence = p[:, 1] if classes == 2 else p.max(axis=1)
        so = (truth == 1) if classes == 2 else (p.argmax(axis=1) == truth)

        def loss(log_t):
            return metrics.log_loss(truth, scaled(p, math.exp(log_t)), labels=range(classes))

        def slope(b):
            q = scaled(p, 1 / b)
            return float((q * np.log(p)).sum(axis=1).mean() - np.log(p)[np.arange(n), truth].mean())

        best = 1 / optimize.brentq(slope, 1e-2, 1e2, xtol=1e-15, rtol=1e-15)
        least = optimize.minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10})
        assert abs(math.log(best) - least.x) < 1e-5, (best, least.x)
        add(
            "calibration",
            labels=truth.tolist(), probabilities=p.tolist(),
            uniform=table(confidence, so, "uniform"), quantile=table(confidence, so, "quantile"),
            temperature=best, loss_before=loss(0.0), loss_after=loss(math.log(best)),
        )


# --- Scores of resamples, and bootstrap intervals.


def scores(labels, p):
    """Every score in the order of `Score::of`."""
    classes = p.shape[1]
    decided = p.argmax(axis=1)
    confidence = p[:, 1] if classes == 2 else p.max(axis=1)
    so = (labels == 1) if classes == 2 else (decided == labels)
    which = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], confidence)
    ece = sum(abs(so[which == b].sum() - confidence[which == b].sum()) for b in range(BINS)) / len(labels)
    loss = metrics.log_loss(labels, p, labels=range(classes))
    brier = metrics.brier_score_loss(labels, p[:, 1] if classes == 2 else p, labels=range(classes))
    accuracy = metrics.accuracy_score(labels, decided)
    if classes == 2:
        return [
            accuracy,
            metrics.precision_score(labels, decided, zero_division=np.nan),
            metrics.recall_score(labels, decided, zero_division=np.nan),
            metrics.recall_score(labels, decided, pos_label=0, zero_division=np.nan),
            metrics.f1_score(labels, decided, zero_division=np.nan),
            metrics.roc_auc_score(labels, p[:, 1]) if len(set(labels)) == 2 else np.nan,
            metrics.average_precision_score(labels, p[:, 1]) if labels.any() else np.nan,
            brier, loss, ece,
        ]
    f1 = metrics.f1_score(labels, decided, labels=range(classes), average="macro", zero_division=0)
    whole = len(set(labels)) == classes
    auc = metrics.roc_auc_score(labels, p, multi_class="ovr", average="macro") if whole else np.nan
    return [accuracy, f1, auc, brier, loss, ece]


def resamples(rng):
    for n, classes, draws in [(80, 2, 20), (70, 3, 20)]:
        labels = rng.integers(0, classes, n)
        z = 1.2 * np.eye(classes)[labels] + rng.normal(size=(n, classes))
        p = np.round(np.exp(z) / np.exp(z).sum(axis=1, keepdims=True), 3)
        p[:, -1] = 1 - p[:, :-1].sum(axis=1)
        indices = [np.arange(n)] + [rng.integers(0, n, n) for _ in range(draws)]
        values = np.array([scores(labels[i], p[i]) for i in indices])
        low, high = np.quantile(values[1:], [0.025, 0.975], axis=0)
        add(
            "resamples",
            labels=labels.tolist(), probabilities=p.tolist(), indices=[i.tolist() for i in indices],
            values=values.tolist(), low=low.tolist(), high=high.tolist(),
        )


def bootstrap(rng):
    """Intervals over images from scipy.stats.bootstrap, over patients by drawing them; other draws than the program's."""
    n, draws = 240, 1500
    labels, (s, _) = images(rng, n, 0.6, (0.8, 0.8))
    patients = np.sort(rng.integers(0, 80, n))
    # Films of a patient are alike: they share most of their score.
    shift = rng.normal(size=80)[patients]
    p = np.round(1 / (1 + np.exp(-(np.log(s / (1 - s)) + 1.5 * shift))), 4)
    p = np.stack([1 - p, p], axis=1)

    def statistic(i, axis=-1):
        i = np.atleast_2d(i)
        out = np.array([scores(labels[j], p[j]) for j in i]).T
        return out if out.shape[1] > 1 else out[:, 0]

    by_image = stats.bootstrap(
        (np.arange(n),), statistic, n_resamples=draws, method="percentile", vectorized=True, rng=rng, batch=200
    ).confidence_interval
    members = [np.flatnonzero(patients == k) for k in np.unique(patients)]
    drawn = []
    for _ in range(draws):
        chosen = np.concatenate([members[k] for k in rng.integers(0, len(members), len(members))])
        drawn.append(scores(labels[chosen], p[chosen]))
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    add(
        "bootstrap",
        labels=labels.tolist(), probabilities=p.tolist(), patients=[f"p{k}" for k in patients],
        images=[by_image.low.tolist(), by_image.high.tolist()], patients_interval=[low.tolist(), high.tolist()],
        spread=np.std(drawn, axis=0, ddof=1).tolist(),
    )


def main():
    rng = np.random.default_rng(20240611)
    delong(rng)
    mcnemar()
    distributions()
    holm(rng)
    repeated(rng)
    operating(rng)
    calibrate(rng)
    resamples(rng)
    bootstrap(rng)

    def plain(value):
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(v) for v in value]
        if isinstance(value, np.generic):
            value = value.item()
        return None if isinstance(value, float) and math.isnan(value) else value

    lines = ",\n".join(json.dumps(plain(c)) for c in cases)
    OUT.write_text(f"[\n{lines}\n]\n")
    print(f"{OUT.name}: {len(cases)} cases, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
