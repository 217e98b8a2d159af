"""Writes tests/golden/speech.safetensors: log-mel filterbanks and MFCC of kaldi-native-fbank, with
python_speech_features' deltas, of three AN4 recordings and of a signal made of integers; and the
perplexity of the test transcripts under the Witten-Bell bigram of the training transcripts.

    pip install kaldi-native-fbank==1.23.0 python_speech_features==0.6 numpy safetensors
    python tests/golden/speech_golden.py DATA      # DATA holds an4/

The recordings themselves are not kept: of the first every frame's features, of the others every
tenth frame's.
"""

import collections
import math
import pathlib
import sys
import wave

import kaldi_native_fbank as knf
import numpy as np
import python_speech_features as psf
from safetensors.numpy import save_file

RATE = 16_000
RECORDINGS = {
    "an4test_clstk/mmxg/an443-mmxg-b": 1,
    "an4_clstk/fash/an255-fash-b": 10,
    "an4test_clstk/fcaw/an406-fcaw-b": 10,
}


def synthetic():
    """A second of rising sawtooth with noise, of 32-bit integer arithmetic alone."""
    phase, step, state = 0, 1 << 22, 1
    for _ in range(RATE):
        phase = (phase + step) & 0xFFFF_FFFF
        step += 1 << 16
        state = (state * 1_664_525 + 1_013_904_223) & 0xFFFF_FFFF
        yield (phase >> 18) - 8192 + (state >> 20) - 2048


def recording(path):
    with wave.open(str(path)) as file:
        assert file.getparams()[:3] == (1, 2, RATE), path
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def frames(extractor, samples):
    extractor.accept_waveform(RATE, samples.astype(float).tolist())
    extractor.input_finished()
    return np.stack([extractor.get_frame(t) for t in range(extractor.num_frames_ready)])


def features(samples):
    fbank, mfcc = knf.FbankOptions(), knf.MfccOptions()
    for options in fbank, mfcc:
        options.frame_opts.samp_freq = RATE
        options.frame_opts.dither = 0
        options.frame_opts.snip_edges = True
        options.mel_opts.num_bins = 40
        options.mel_opts.low_freq = 20
        options.mel_opts.high_freq = 8000
    mfcc.num_ceps = 13
    mfcc.use_energy = False
    mfcc.cepstral_lifter = 22
    cepstra = frames(knf.OnlineMfcc(mfcc), samples)
    slopes = psf.delta(cepstra.astype(float), 2)
    with_deltas = np.hstack([cepstra, slopes, psf.delta(slopes, 2)])
    return frames(knf.OnlineFbank(fbank), samples), with_deltas


def perplexity(etc):
    """Of the bigram, over every word and </s>; 101 words and </s> are possible."""

    def pairs(split):
        for line in open(etc / f"an4_{split}.transcription"):
            words = [w for w in line.split()[:-1] if w not in ("<s>", "</s>")]
            yield from zip(["<s>"] + words, words + ["</s>"])

    unigrams, bigrams = collections.Counter(), collections.defaultdict(collections.Counter)
    for before, after in pairs("train"):
        unigrams[after] += 1
        bigrams[before][after] += 1

    def smoothed(counts, word, lower):
        return (counts[word] + len(counts) * lower) / (counts.total() + len(counts))

    logs = []
    for before, after in pairs("test"):
        p = smoothed(unigrams, after, 1 / 102)
        logs.append(math.log(smoothed(bigrams[before], after, p) if bigrams[before] else p))
    return math.exp(-sum(logs) / len(logs))


def main(data):
    signals = {"synthetic": (np.array(list(synthetic()), dtype=np.int16), 1)}
    for name, every in RECORDINGS.items():
        signals[name] = recording(data / "an4" / "wav" / f"{name}.wav"), every
    arrays = {}
    for name, (samples, every) in signals.items():
        fbank, mfcc = features(samples)
        arrays[f"fbank/{name}"] = np.ascontiguousarray(fbank[::every], dtype=np.float32)
        arrays[f"mfcc/{name}"] = np.ascontiguousarray(mfcc[::every], dtype=np.float32)
        print(name, fbank.shape, mfcc.shape, "every", every)
    arrays["perplexity"] = np.array([perplexity(data / "an4" / "etc")])
    save_file(arrays, pathlib.Path(__file__).with_name("speech.safetensors"))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
