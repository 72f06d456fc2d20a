// Camera pictures and the five most probable classes of each, by a Core ML package of fbnetv3-zoo.
import AVFoundation
import CoreML
import SwiftUI
import Vision

/// The model with what the package says of itself: class names and normalization are part of the program, and the
/// sizes of its preprocessing are in the metadata.
struct Classifier {
    let model: VNCoreMLModel
    let visible: Double  // side of the square that the network sees, as a part of the picture's shorter side

    init(contentsOf url: URL) throws {
        let loaded = try MLModel(contentsOf: url)
        model = try VNCoreMLModel(for: loaded)
        let metadata = loaded.modelDescription.metadata[.creatorDefinedKey] as? [String: String]
        guard let text = metadata?["fbnetv3_zoo.preprocess"],
            let preprocess = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any],
            let resize = preprocess["resize"] as? Double, let resolution = preprocess["resolution"] as? Double
        else { throw CocoaError(.fileReadCorruptFile) }
        visible = resolution / resize
    }

    /// The most probable classes of an upright picture of `width` x `height` pixels.
    func callAsFunction(_ picture: CVPixelBuffer, count: Int = 5) throws -> [VNClassificationObservation] {
        let (width, height) = (Double(CVPixelBufferGetWidth(picture)), Double(CVPixelBufferGetHeight(picture)))
        let side = visible * min(width, height)
        let request = VNCoreMLRequest(model: model)
        request.regionOfInterest = CGRect(
            x: (1 - side / width) / 2, y: (1 - side / height) / 2, width: side / width, height: side / height)
        request.imageCropAndScaleOption = .scaleFill  // the region is square already
        try VNImageRequestHandler(cvPixelBuffer: picture).perform([request])
        let found = request.results?.compactMap { $0 as? VNClassificationObservation } ?? []
        return Array(found.sorted { $0.confidence > $1.confidence }.prefix(count))
    }
}

final class Camera: NSObject, ObservableObject, AVCaptureVideoDataOutputSampleBufferDelegate {
    @Published var lines = ["..."]
    let session = AVCaptureSession()
    private let queue = DispatchQueue(label: "camera")
    private var classifier: Classifier?

    func start() {
        AVCaptureDevice.requestAccess(for: .video) { granted in
            self.queue.async {
                do {
                    try self.prepare(granted)
                    self.session.startRunning()
                } catch {
                    self.show([error.localizedDescription])
                }
            }
        }
    }

    private func prepare(_ granted: Bool) throws {
        guard granted, let device = AVCaptureDevice.default(for: .video),
            let package = Bundle.main.url(forResource: "model", withExtension: "mlmodelc")
        else { throw CocoaError(.featureUnsupported) }
        classifier = try Classifier(contentsOf: package)
        let pictures = AVCaptureVideoDataOutput()
        pictures.setSampleBufferDelegate(self, queue: queue)
        pictures.alwaysDiscardsLateVideoFrames = true
        session.addInput(try AVCaptureDeviceInput(device: device))
        session.addOutput(pictures)
        pictures.connection(with: .video)?.videoOrientation = .portrait
    }

    func captureOutput(_: AVCaptureOutput, didOutput sample: CMSampleBuffer, from _: AVCaptureConnection) {
        guard let picture = CMSampleBufferGetImageBuffer(sample), let classifier else { return }
        do {
            show(try classifier(picture).map { String(format: "%5.1f %%  ", 100 * $0.confidence) + $0.identifier })
        } catch {
            show([error.localizedDescription])
        }
    }

    private func show(_ lines: [String]) {
        DispatchQueue.main.async { self.lines = lines }
    }
}

struct Finder: UIViewRepresentable {
    let session: AVCaptureSession

    final class Screen: UIView {
        override class var layerClass: AnyClass { AVCaptureVideoPreviewLayer.self }
    }

    func makeUIView(context: Context) -> Screen {
        let screen = Screen()
        (screen.layer as? AVCaptureVideoPreviewLayer)?.session = session
        return screen
    }

    func updateUIView(_: Screen, context: Context) {}
}

@main
struct CameraApp: App {
    @StateObject private var camera = Camera()

    var body: some Scene {
        WindowGroup {
            VStack(alignment: .leading) {
                Finder(session: camera.session)
                Text(camera.lines.joined(separator: "\n")).font(.system(.body, design: .monospaced)).padding()
            }
            .onAppear(perform: camera.start)
        }
    }
}
