# Leaves llama.cpp's "common" library and tools out of a build of llama-cpp-python, which uses none of them:
#   CMAKE_ARGS="-DLLAVA_BUILD=OFF -DCMAKE_PROJECT_INCLUDE=$PWD/docs/lean-llama.cmake" pip install ".[listwise]"
set(LLAMA_BUILD_COMMON OFF)
