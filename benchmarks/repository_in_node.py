"""Whether transformers.js classifies with a repository of `save_pretrained`, under Node, as PyTorch does.

The network is `fbnetv3_nano` with its weights, int8 calibrated on photographs of scikit-learn; images are those of
scikit-image, once in the network's size, where all get the same pixels, and once whole, which transformers.js resizes
by itself. transformers.js is not installed by this package: it is half a GB.

    npm install --ignore-scripts @huggingface/transformers
    python benchmarks/repository_in_node.py FOLDER_WITH_NODE_MODULES
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from sample_photographs import photographs

import fbnetv3_zoo
from fbnetv3_zoo.classify import Classifier
from fbnetv3_zoo.export import sample_images

SCRIPT = """
import { env, pipeline, AutoConfig } from '@huggingface/transformers';
const [place, count] = process.argv.slice(-2);
env.allowRemoteModels = false;
env.localModelPath = `${place}/`;
const answers = {};
for (const dtype of ['fp32', 'q8']) {
  const config = await AutoConfig.from_pretrained('me/net');
  config.model_type = 'resnet';
  const classify = await pipeline('image-classification', 'me/net', { config, dtype });
  for (const kind of ['small', 'whole']) {
    answers[`${dtype} ${kind}`] = [];
    for (let n = 0; n < Number(count); n++)
      answers[`${dtype} ${kind}`].push(await classify(`${place}/${kind}${n}.png`, { top_k: null }));
  }
}
console.log(JSON.stringify(answers));
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", type=Path, help="the folder that has node_modules")
    modules = parser.parse_args().modules
    model = fbnetv3_zoo.create("fbnetv3_nano", pretrained=True).eval()
    whole = photographs()
    crop = replace(model.preprocess, resolution=model.preprocess.resize)
    images = {"whole": whole, "small": [crop.crop(image) for image in whole]}
    with tempfile.TemporaryDirectory() as folder:
        fbnetv3_zoo.save_pretrained(model, Path(folder, "me", "net"), images=sample_images.photographs(64))
        for kind, pictures in images.items():
            for number, image in enumerate(pictures):
                image.save(Path(folder, f"{kind}{number}.png"))
        command = ["node", "--input-type=module", "-", folder, str(len(whole))]
        done = subprocess.run(command, input=SCRIPT, cwd=modules, capture_output=True, text=True, check=True)
    print("| weights | images | largest difference of a probability | same class |\n|---|---|---:|---:|")
    classifier = Classifier.of(model)
    for name, found in json.loads(done.stdout.splitlines()[-1]).items():
        dtype, kind = name.split()
        wanted = classifier(images[kind], top=1000)
        shares = [{one["label"]: one["score"] for one in answer} for answer in found]
        apart = max(abs(s[p.name] - p.probability) for s, ps in zip(shares, wanted, strict=True) for p in ps)
        same = np.mean([answer[0]["label"] == ps[0].name for answer, ps in zip(found, wanted, strict=True)])
        print(f"| {dtype} | {kind} | {apart:.1e} | {same:.0%} of {len(found)} |")


if __name__ == "__main__":
    main()
