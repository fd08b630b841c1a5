// Checkpoints: decoding any bytes, and any head whose checks are true; what decodes lies within the file.
#include <cstring>
#include <vector>

#include "apikey/checkpoint.hpp"
#include "fuzz_input.hpp"

namespace {

void store(std::vector<std::byte>& file, std::size_t offset, std::uint64_t word) {
  std::memcpy(file.data() + offset, &word, sizeof word);
}

bool lies_within(std::span<const std::byte> part, const std::vector<std::byte>& file) {
  return part.empty() || (part.data() >= file.data() && part.data() + part.size() <= file.data() + file.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzInput input(data, size);
  const bool makes_checks_true = input.byte() != 0;
  const auto content = input.remaining_bytes();
  std::vector<std::byte> file(content.begin(), content.end());
  if (makes_checks_true && file.size() >= apikey::kCheckpointHeadSize) {
    std::memcpy(file.data(), "AKSTATE1", 8);
    apikey::Fold64 fold(0);
    fold.bytes(std::span<const std::byte>(file).subspan(apikey::kCheckpointHeadSize));
    store(file, 136, fold.value());
    store(file, 152, apikey::fold64(std::span<const std::byte>(file).first(152)));
  }
  apikey::Checkpoint checkpoint;
  if (apikey::decode_checkpoint(file, checkpoint).ok()) {
    require(lies_within(checkpoint.quotas, file) && lies_within(checkpoint.usage_head, file) &&
            lies_within(checkpoint.usage, file) && lies_within(checkpoint.stores, file));
    const std::size_t body =
        checkpoint.quotas.size() + checkpoint.usage_head.size() + checkpoint.usage.size() + checkpoint.stores.size();
    require(body + apikey::kCheckpointHeadSize == file.size() || body + 128 == file.size());
  }
  return 0;
}
