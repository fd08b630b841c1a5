// The seal page: decoding any page; what decodes encodes to the same bytes.
#include <vector>

#include "apikey/seal.hpp"
#include "fuzz_input.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzInput input(data, size);
  apikey::Seal seal;
  const std::size_t page_size = std::size_t{4096} << (input.byte() % 5);
  const bool is_framed = input.byte() != 0;
  const auto content = input.remaining_bytes();
  if (!is_framed) {
    (void)apikey::decode_seal(content, seal);
    return 0;
  }
  // Magic, version and lengths as they must be; the rest from the input.
  std::vector<std::byte> file(4 * page_size);
  apikey::Seal frame;
  frame.page_size = static_cast<std::uint32_t>(page_size);
  frame.length = file.size();
  const auto page = std::span(file).subspan(3 * page_size);
  apikey::encode_seal(frame, page);
  std::copy_n(content.begin(), std::min(content.size(), page_size - 24), page.begin() + 24);
  if (apikey::decode_seal(file, seal).ok()) {
    std::vector<std::byte> again(page_size);
    apikey::encode_seal(seal, again);
    require(std::equal(again.begin(), again.end(), page.begin()));
  }
  return 0;
}
