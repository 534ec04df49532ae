"""Prompts of vLLM's engine: text and kept visual tokens as embeddings, with towers run for many requests at a time."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import torch

from holitom.byte_cache import ByteCache
from holitom.compressor import Compressor
from holitom.errors import InputError
from holitom.families import find_family
from holitom.hooks.tower.signals import Recorder
from holitom.serving.requests import VideoRequest, frame_count, read_clip, video_key
from holitom.serving.served_methods import Method, ServedMethod, served_method
from holitom.serving.videos import AskedVideo, EncodedClip, Kept, ServingCounts, SplicedPrompt

CACHE_BYTES = 4 << 30  # a video of 32 frames behind the tower of a 7B model takes 45 MB in half precision
FRAMES_PER_BATCH = 128  # of several videos; their pixel values take 0.2 GB


class PromptMaker:
    """Makes prompts with a checkpoint's tower, projector and embedding table; its LLM is not loaded.

    Args:
        checkpoint: folder in either published layout.
        device: of the tower and the outer stage.
        dtype: ``"float16"``, ``"bfloat16"`` or ``"float32"``; None is float16 on CUDA and float32 on the CPU.
        cache_bytes: room for videos behind the tower and for their kept tokens, on the CPU; half of it for each.
        frames_per_batch: frames of all videos that go through the tower in one call; one video may have more.

    Attributes:
        counts: :class:`ServingCounts`.

    Raises:
        InputError: for a wrong argument or checkpoint.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike[str],
        device: str | torch.device | None = None,
        dtype: str | None = None,
        cache_bytes: int = CACHE_BYTES,
        frames_per_batch: int = FRAMES_PER_BATCH,
    ) -> None:
        from llava.model.builder import load_without_decoder  # noqa: PLC0415

        if isinstance(frames_per_batch, bool) or not isinstance(frames_per_batch, int) or frames_per_batch < 1:
            raise InputError(f"frames_per_batch = {frames_per_batch!r} is out of range: it must be at least 1; use 128")
        self._cache_bytes = cache_bytes
        self.forget()
        self._frames_per_batch = frames_per_batch
        place = device if device is not None else "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer, self.model = load_without_decoder(checkpoint, place, torch_dtype=dtype)
        self.counts = ServingCounts()
        self._methods: dict[Method, ServedMethod] = {}
        self._recorders: dict[str, Recorder] = {}

    def forget(self) -> None:
        """Empty the cache."""
        self._encoded: ByteCache[EncodedClip] = ByteCache(self._cache_bytes // 2)
        self._kept: ByteCache[Kept] = ByteCache(self._cache_bytes - self._cache_bytes // 2)

    def method(self, method: Method) -> ServedMethod:
        """A method as :func:`~holitom.serving.served_methods.served_method` knows it, read once.

        Raises:
            InputError: if it cannot be served.
        """
        try:
            found = self._methods.get(method)
        except TypeError:  # settings in a dictionary
            return served_method(method)
        if found is None:
            found = self._methods[method] = served_method(method)
        return found

    @torch.no_grad()
    def prompts(self, requests: Sequence[VideoRequest]) -> Iterator[tuple[int, SplicedPrompt]]:
        """Prompts with the number of their request, batch by batch: in the order in which their videos are ready.

        Every request is looked at before the first tower runs. Videos are in one batch as long as their frames fit.

        Raises:
            InputError: for a request that cannot be served; its number is said.
            VideoError: for a video that cannot be read.
        """
        for batch in self._batches(self._by_video(requests)):
            self._read(batch)
            self._encode([video for video in batch if video.needs_features])
            for video in batch:
                self._compress(video)
                for number, method in video.requests:
                    yield number, self._prompt(requests[number].question, video.kept[method])
                video.encoded = video.pixels = None

    def _by_video(self, requests: Sequence[VideoRequest]) -> list[AskedVideo]:
        """The videos of the requests in order, with what the caches hold of them."""
        from llava.video_prompt import video_defaults  # noqa: PLC0415

        videos: dict[Hashable, AskedVideo] = {}
        default = video_defaults(self.model.config).num_frames
        for number, request in enumerate(requests):
            try:
                method = self.method(request.method)
                count = frame_count(request, default if method.num_frames is None else method.num_frames)
                key = video_key(request.video, count)
            except InputError as error:
                raise type(error)(f"request {number}: {error}") from None
            video = videos.setdefault(key, AskedVideo(key, request.video, count))
            video.requests.append((number, method.key))
            if method.key not in video.methods:
                video.methods[method.key] = method
                kept = self._kept.get((key, method.key))
                if kept is not None:
                    video.kept[method.key] = kept
        return list(videos.values())

    def _batches(self, videos: Sequence[AskedVideo]) -> Iterator[list[AskedVideo]]:
        batch: list[AskedVideo] = []
        frames = 0
        for video in videos:
            encoded = self._encoded.get(video.key)
            if encoded is not None and video.signals <= set(encoded.signals):
                video.encoded, video.clip = encoded, encoded.clip
            count = video.num_frames if video.needs_pixels else 0
            if batch and frames + count > self._frames_per_batch:
                yield batch
                batch, frames = [], 0
            batch.append(video)
            frames += count
        if batch:
            yield batch

    def _read(self, batch: Sequence[AskedVideo]) -> None:
        """Pixel values of the videos that a tower must see."""
        processor = self.model.get_vision_tower().image_processor
        for video in batch:
            if video.needs_pixels:
                clip = read_clip(video.source, video.num_frames)
                video.pixels = processor.preprocess(clip.frames, return_tensors="pt")["pixel_values"]
                video.clip = clip.without_pictures()

    def _encode(self, videos: Sequence[AskedVideo]) -> None:
        """One call of the tower for all of them, with every signal that any of their methods needs."""
        if not videos:
            return
        signals = sorted(frozenset().union(*(video.signals for video in videos)))
        pixels = torch.cat([video.pixels for video in videos if video.pixels is not None])
        with ExitStack() as stack:
            for name in signals:
                stack.enter_context(self._recorder(name).recording())
            features = self._encoder(None).encode_frames(pixels)
        sizes = [len(video.pixels) for video in videos if video.pixels is not None]
        parts = {name: self._recorder(name).take().split(sizes) for name in signals}
        for number, (video, part) in enumerate(zip(videos, features.split(sizes), strict=True)):
            assert video.clip is not None
            own = {name: parts[name][number] for name in signals}
            video.encoded = EncodedClip(part, own, video.clip)
            stored = video.encoded.on_the_cpu()
            self._encoded.put(video.key, stored, stored.bytes)
        self.counts.tower_calls += 1
        self.counts.tower_videos += len(videos)
        self.counts.tower_frames += len(pixels)

    def _recorder(self, name: str) -> Recorder:
        if name not in self._recorders:
            self._recorders[name] = find_family(self.model).recorder(self.model, name)
        return self._recorders[name]

    def _encoder(self, compressor: Compressor | None) -> Any:
        from llava.model.visual_inputs import VisualEncoder  # noqa: PLC0415

        return VisualEncoder(self.model.get_model(), self.model.config, compressor)

    def _compress(self, video: AskedVideo) -> None:
        """The outer stage of every method of a video whose tokens are not there yet, and newlines."""
        for method in video.missing:
            assert video.clip is not None
            compressor = method.compressor or Compressor(None, None)
            encoder = self._encoder(compressor)
            tokens = self._own_tower(compressor, encoder, video) if method.has_tower else None
            if tokens is None:
                tokens = self._outer(compressor, encoder, video)
            before = tokens.details.frames * tokens.details.tokens_per_frame
            frames = tokens.details.frames
            visual = encoder.video_tokens(tokens.features, tokens.index, frames, tokens.every_row)
            kept = Kept(visual.features.cpu(), (before, len(tokens.index)), video.clip)
            video.kept[method.key] = kept
            self._kept.put((video.key, method.key), kept, kept.features.nbytes)
            self.counts.compressions += method.compressor is not None

    def _outer(self, compressor: Compressor, encoder: Any, video: AskedVideo) -> Any:
        assert video.encoded is not None
        compressor.start_prompt()
        device = self.model.device
        needed = compressor.outer.signals if compressor.outer is not None else ()
        signals = {name: video.encoded.signals[name].to(device) for name in needed}
        features = video.encoded.features.to(device)
        return compressor.compress_features(features, signals, encoder.pool, encoder.newline_mode)

    def _own_tower(self, compressor: Compressor, encoder: Any, video: AskedVideo) -> Any:
        """A method that merges frames inside the tower runs it on its own."""
        pixels = video.pixels
        assert pixels is not None
        with compressor.applied(self.model):
            compressor.start_prompt()
            tokens = compressor.compress_video(
                lambda: encoder.encode_frames(pixels), encoder.pool, encoder.newline_mode
            )
        self.counts.tower_calls += 1
        self.counts.tower_videos += 1
        self.counts.tower_frames += len(pixels)
        return tokens

    def _prompt(self, question: str, kept: Kept) -> SplicedPrompt:
        """Text and tokens, spliced as for our own decoder."""
        from llava.asking import prompt_ids  # noqa: PLC0415
        from llava.model.splicing import VisualTokens, splice  # noqa: PLC0415
        from llava.video_prompt import video_question  # noqa: PLC0415

        config = self.model.config
        ids = prompt_ids(self.tokenizer, video_question(question, kept.clip, config)).to(self.model.device)
        visual = VisualTokens(kept.features.to(self.model.device), is_video=True)
        longest = getattr(config, "tokenizer_model_max_length", None)
        spliced = splice(ids, None, None, [visual], self.model.get_model().embed_tokens, longest)
        return SplicedPrompt(spliced.inputs_embeds[0].cpu(), kept.counts, kept.clip)
