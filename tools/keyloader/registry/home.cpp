// Telling a registry from its copy. Must never give out the machine's id, which is nobody else's business
// (machine-id(5)).
#include "registry/home.hpp"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <fstream>

#include "registry/model.hpp"

namespace keyloader {
namespace {

// What machine-id(5) advises, as sd_id128_get_machine_app_specific(3) does it: HMAC-SHA256 with the id as its key over
// a constant of ours, 16 bytes of it.
constexpr std::string_view kApplication = "nginx-apikey registry home";
constexpr std::size_t kMachineBytes = 16;

std::string machine() {
  std::ifstream file("/etc/machine-id");
  std::string id;
  file >> id;
  if (id.size() != 2 * kMachineBytes || id.find_first_not_of("0123456789abcdef") != std::string::npos) {
    return {};  // none, or "uninitialized"
  }
  std::array<unsigned char, EVP_MAX_MD_SIZE> hash{};
  unsigned int length = 0;
  const auto* const data = reinterpret_cast<const unsigned char*>(kApplication.data());
  if (HMAC(EVP_sha256(), id.data(), static_cast<int>(id.size()), data, kApplication.size(), hash.data(), &length) ==
      nullptr) {
    return {};
  }
  return hex(hash.data(), kMachineBytes);
}

std::string host() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? std::string{name.data()} : std::string{};
}

std::string place(const Home& home) {
  return home.host.empty() ? home.directory : fmt::format("{} on {}", home.directory, home.host);
}

}  // namespace

Home home_of(const std::filesystem::path& file) {
  std::error_code error;
  const std::filesystem::path directory =
      std::filesystem::canonical(file.has_parent_path() ? file.parent_path() : ".", error);
  return {.directory = error ? std::string{} : directory.string(), .machine = machine(), .host = host()};
}

bool is_at_home(const Home& home, const Home& here) {
  const bool is_machine_known = !home.machine.empty() && !here.machine.empty();
  return home.directory.empty() ||
         (home.directory == here.directory && (!is_machine_known || home.machine == here.machine));
}

std::string elsewhere_text(const Home& home, const Home& here) {
  return fmt::format("this registry belongs to {}; here, in {}, it is a copy", place(home), place(here));
}

}  // namespace keyloader
