"""The objective of docs/method.md written a second time: loops over scalars, no mask, no padding, no batch.

Every number is a float64 tensor without dimensions, so that autograd differentiates the loops. Sentences are given as
one list per report.
"""

import torch


def dot(u, v):
    return sum(a * b for a, b in zip(u, v, strict=True))


def mean(values):
    return sum(values) / len(values)


def log_sum_exp(values):
    return torch.log(sum(torch.exp(value) for value in values))


def mlce(logits, labels):
    negatives = [torch.exp(logit) for logit, label in zip(logits, labels, strict=True) if not label]
    positives = [torch.exp(-logit) for logit, label in zip(logits, labels, strict=True) if label]
    one = torch.ones((), dtype=torch.float64)
    return torch.log(one + sum(negatives)) + torch.log(one + sum(positives))


def instance_logits(images, reports, scale):
    """zI and zT as nested lists, rows images; 0 for a report without a sentence."""
    zero = torch.zeros((), dtype=torch.float64)
    image_logits, text_logits = [], []
    for patches in images:
        image_row, text_row = [], []
        for sentences in reports:
            if len(sentences) == 0:
                image_row.append(zero)
                text_row.append(zero)
                continue
            image_row.append(mean([max(scale * dot(p, s) for s in sentences) for p in patches]))
            text_row.append(mean([max(scale * dot(p, s) for p in patches) for s in sentences]))
        image_logits.append(image_row)
        text_logits.append(text_row)
    return image_logits, text_logits


def contrastive(images, reports, scale):
    kept = [k for k in range(len(images)) if len(reports[k])]
    if not kept:
        return torch.zeros((), dtype=torch.float64)
    image_logits, text_logits = instance_logits(images, reports, scale)
    rows = [log_sum_exp([image_logits[k][m] for m in kept]) - image_logits[k][k] for k in kept]
    columns = [log_sum_exp([text_logits[m][k] for m in kept]) - text_logits[k][k] for k in kept]
    return mean(rows) / 2 + mean(columns) / 2


def gaze(images, reports, heatmaps, has_gaze, scale, threshold=0.1, sentence_weight=0.5):
    terms = []
    for patches, sentences, maps, recorded in zip(images, reports, heatmaps, has_gaze, strict=True):
        if not recorded or not len(sentences):
            continue
        labels = [[cell > threshold * max(row) for cell in row] for row in maps]
        x = [[scale * dot(s, p) for p in patches] for s in sentences]
        by_sentence = mean([mlce(x[j], labels[j]) for j in range(len(sentences))])
        by_patch = mean(
            [mlce([row[i] for row in x], [labels[j][i] for j in range(len(x))]) for i in range(len(patches))]
        )
        terms.append(sentence_weight * by_sentence + (1 - sentence_weight) * by_patch)
    return mean(terms) if terms else torch.zeros((), dtype=torch.float64)


def mapping_weights(row, heat, scale, threshold):
    """One row of W: omega, gaze where there is some, the floor, and division by the sum."""
    low, high = min(row), max(row)
    if high - low <= 1e-6 * scale:
        omega = [torch.zeros((), dtype=torch.float64) for _ in row]
    else:
        omega = [(value - low) / (high - low) for value in row]
        omega = [value if value >= threshold else torch.zeros((), dtype=torch.float64) for value in omega]
    if heat is not None:
        omega = [(value + h) / 2 for value, h in zip(omega, heat, strict=True)]
    weights = [value + 0.01 for value in omega]
    return [weight / sum(weights) for weight in weights]


def blend(weights, vectors):
    """Weighted sum of vectors, L2-normalised."""
    total = [sum(w * vector[d] for w, vector in zip(weights, vectors, strict=True)) for d in range(len(vectors[0]))]
    length = torch.sqrt(sum(value * value for value in total))
    return [value / length for value in total]


def info_nce(mapped, original, scale):
    logits = [[scale * dot(m, o) for o in original] for m in mapped]
    rows = [log_sum_exp(row) - row[k] for k, row in enumerate(logits)]
    columns = [log_sum_exp([row[k] for row in logits]) - logits[k][k] for k in range(len(logits))]
    return mean(rows) / 2 + mean(columns) / 2


def mapping(images, reports, heatmaps, has_gaze, scale, threshold=2 / 7):
    terms = []
    for patches, sentences, maps, recorded in zip(images, reports, heatmaps, has_gaze, strict=True):
        if len(sentences) < 2:
            continue
        x = [[scale * dot(s, p) for p in patches] for s in sentences]
        to_image = [mapping_weights(x[j], maps[j] if recorded else None, scale, threshold) for j in range(len(x))]
        to_text = [
            mapping_weights([row[i] for row in x], [row[i] for row in maps] if recorded else None, scale, threshold)
            for i in range(len(patches))
        ]
        mapped_sentences = [blend(weights, patches) for weights in to_image]
        mapped_patches = [blend(weights, sentences) for weights in to_text]
        text_term = info_nce(mapped_sentences, sentences, scale)
        image_term = info_nce(mapped_patches, patches, scale)
        terms.append((image_term + text_term) / 2)
    return mean(terms) if terms else torch.zeros((), dtype=torch.float64)


def pooled_cosine(patches, sentence, scale):
    """Patches are pooled as the sentence weighs them, and the mean is compared with the sentence."""
    weights = [torch.exp(scale * dot(sentence, p)) for p in patches]
    return dot(sentence, blend([weight / sum(weights) for weight in weights], patches))


def alone(positive, negatives):
    """One positive against its negatives."""
    return log_sum_exp([positive, *negatives]) - positive


def matching(logits, own, texts):
    """Rows against sentences, both ways; `own[r]` are the sentences of row r, None where it takes no part."""
    rows = [r for r in range(len(logits)) if own[r]]
    if not rows:
        return torch.zeros((), dtype=torch.float64)
    by_row, by_sentence = [], []
    for r in rows:
        mine = {texts[n] for n in own[r]}
        negatives = [logits[r][n] for n in range(len(texts)) if texts[n] not in mine]
        by_row.append(mean([alone(logits[r][n], negatives) for n in own[r]]))
        for n in own[r]:
            others = [logits[q][n] for q in rows if texts[n] not in {texts[m] for m in own[q]}]
            by_sentence.append(alone(logits[r][n], others))
    return mean(by_row) / 2 + mean(by_sentence) / 2


def pooled_contrastive(images, sentences, rows, texts, scale):
    logits = [[scale * pooled_cosine(patches, s, scale) for s in sentences] for patches in images]
    own = [[n for n in range(len(rows)) if rows[n] == k] for k in range(len(images))]
    return matching(logits, own, texts)


def soft_gaze(images, sentences, rows, heatmaps, looked, scale):
    terms = []
    for n in range(len(rows)):
        if looked[n]:
            x = [scale * dot(sentences[n], p) for p in images[rows[n]]]
            share = [h / sum(heatmaps[n]) for h in heatmaps[n]]
            terms.append(sum(q * (log_sum_exp(x) - value) for q, value in zip(share, x, strict=True)))
    return mean(terms) if terms else torch.zeros((), dtype=torch.float64)


def batch_mapping(images, sentences, rows, texts, heatmaps, looked, scale):
    logits = []
    for n in range(len(rows)):
        gazed = blend([h / sum(heatmaps[n]) for h in heatmaps[n]], images[rows[n]]) if looked[n] else None
        logits.append([scale * dot(gazed, s) if looked[n] else None for s in sentences])
    return matching(logits, [[n] if looked[n] else [] for n in range(len(rows))], texts)
